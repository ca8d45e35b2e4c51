from collections.abc import Iterator

import click
import pytest

from aimessage.cli.options import Shared, output_is_json, shared_options

SEEN: list[Shared] = []


@click.group()
@shared_options
def outer(_shared: Shared) -> None:
    """Stand for `aimessage`."""


@outer.command()
@shared_options
def inner(shared: Shared) -> None:
    """Stand for a subcommand."""
    SEEN.append(shared)


def parsed(*arguments: str) -> Shared:
    SEEN.clear()
    outer.main(list(arguments), standalone_mode=False)
    return SEEN[0]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("AIMESSAGE_OUTPUT", raising=False)
    yield


@pytest.mark.parametrize(
    "arguments",
    [
        ("--agent", "a", "--server", "ws://h", "--json", "inner"),
        ("inner", "-a", "a", "-s", "ws://h", "--json"),
        ("-a", "a", "inner", "--json", "--server", "ws://h"),
    ],
)
def test_shared_options_work_before_and_after_the_subcommand(arguments: tuple[str, ...]) -> None:
    shared = parsed(*arguments)

    assert (shared.agent, shared.server, shared.screen.as_json) == ("a", "ws://h", True)


def test_the_later_one_wins() -> None:
    assert parsed("-a", "first", "inner", "-a", "second").agent == "second"


def test_nothing_said_is_none_and_text() -> None:
    shared = parsed("inner")

    assert (shared.agent, shared.server, shared.passphrase_file, shared.screen.as_json) == (None, None, None, False)


def test_one_command_line_does_not_colour_the_next() -> None:
    parsed("--json", "inner")

    assert parsed("inner").screen.as_json is False


def test_the_environment_may_ask_for_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIMESSAGE_OUTPUT", "json")

    assert parsed("inner").screen.as_json is True
    assert output_is_json([], {"AIMESSAGE_OUTPUT": "json"})
