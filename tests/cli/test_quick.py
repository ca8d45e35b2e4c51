"""The short way of a plain `send` reads a part of what click reads, and reads that part alike."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.cli.app import cli
from aimessage.cli.quick import PlainSend, read_plain_send

WORDS = st.sampled_from(
    [
        *("send", "--to", "-t", "-m", "--message", "--file", "-a", "--agent", "-s", "--server", "--json", "--fold"),
        *("--thread", "--reply-to", "--idempotency-key", "--to=bobby", "--message=hello", "--agent=x", "bobby"),
        *("-", "--", "hello", "-x", "--dry-run", "--ttl", "1h", "", "--json=1", "-mhello", "inbox", "--help", "a=b"),
    ]
)


def click_reads(arguments: list[str]) -> PlainSend | None:
    """What click makes of a line, as the short way would put it; None if it is no `send`, or is refused."""
    try:
        context = cli.make_context("aimessage", list(arguments))
        name, command, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
        if command is None or name != "send":
            return None
        inner = command.make_context(name, list(rest), parent=context)
    except (click.ClickException, click.exceptions.Exit):
        return None
    said, shared = inner.params, {key.rsplit(".", 1)[1]: value for key, value in inner.meta.items()}
    defaults = {"ttl": None, "data": None, "wait_for": "accepted", "dry_run": False}
    if any(said.get(name, default) != default for name, default in defaults.items()) or len(said["recipients"]) != 1:
        return None
    names = ("message", "thread", "reply_to", "idempotency_key", "fold")
    return PlainSend(
        to=said["recipients"][0],
        file=str(said["file"]) if said["file"] is not None else None,
        agent=shared.get("agent"),
        server=shared.get("server"),
        json=bool(shared.get("json")),
        **{name: said[name] for name in names},
    )


def fields(plain: PlainSend | None) -> list[object] | None:
    return None if plain is None else [getattr(plain, name) for name in PlainSend.__annotations__]


@given(st.lists(WORDS, max_size=9))
def test_whatever_the_short_way_reads_click_reads_alike(arguments: list[str]) -> None:
    plain = read_plain_send(arguments, {})
    if plain is not None:
        assert fields(plain) == fields(click_reads(arguments))


@pytest.mark.parametrize(
    "line",
    [
        "send --to bobby -m hello",
        "send -m - -t bobby",
        "--agent x --json send --to=bobby --file notes.txt --fold",
        "-s ws://h:1 send -t bobby --message=hello -a y --thread t --reply-to r --idempotency-key k",
    ],
)
def test_the_plain_lines_take_the_short_way(line: str) -> None:
    plain = read_plain_send(line.split(), {})
    assert plain is not None
    assert fields(plain) == fields(click_reads(line.split()))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "send",
        "inbox",
        "send --to bobby",
        "send --to bobby --to carol -m x",
        "send --to bobby -m x --wait-for read",
        "send --to bobby -m x --file y",
        "send --to bobby -m -x",
        "send --to bobby -m x --help",
        "--to bobby send -m x",
    ],
)
def test_everything_else_is_left_to_click(line: str) -> None:
    assert read_plain_send(line.split(), {}) is None


def test_an_output_format_that_is_none_is_left_to_click_to_refuse() -> None:
    assert read_plain_send(["send", "--to", "b", "-m", "x"], {"AIMESSAGE_OUTPUT": "xml"}) is None
