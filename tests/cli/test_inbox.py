"""What `inbox` and `read` print never exceeds what was asked for: the real renderer, with any messages."""

import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aimessage import errors
from aimessage.cli.history import show_history
from aimessage.cli.inbox import _Options, footer_chars, next_command, show_page
from aimessage.cli.render import Screen
from aimessage.cli.showing import LEAST_CHARS, cost_on, show_message
from aimessage.client import Entry, Fate, InboxPage, Message
from aimessage.client.message import Frame, incoming
from aimessage.client.reading import Budget, page_of, piece_of
from aimessage.e2ee.bodies import Body
from aimessage.errors import RelayUnreachable
from aimessage.types import MessageId, Username

FLAGS = (("--agent", "b" * 64), ("--server", "wss://relay.example.org:8443"))
ANY_TEXT = st.text(max_size=400) | st.text(alphabet='\n"\\\u200c\U0001f600क्', max_size=2_000)
OPTIONS = _Options(
    limit=20, max_chars=8_000, cursor=None, peek=True, sender=None, thread=None, state="all", render="line"
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Return a message as it comes out of the vault: whatever a peer's program put into it."""
    said, thread = draw(ANY_TEXT), draw(ANY_TEXT)
    kind = draw(st.sampled_from(["text", "data"]))
    body = Body(
        kind, bytes(16), 1, draw(st.integers(0, 1 << 61)), text=said if kind == "text" else "",
        data=json.dumps(said) if kind == "data" else "", thread=thread, hops=draw(st.integers(0, 1 << 61)),
    )  # fmt: skip
    frame = Frame(
        draw(st.integers(1, 10**12)), Username("a" * 32), Username("b" * 32), MessageId(bytes(16)), "message", 1
    )
    flags = ("late", "expired") if draw(st.booleans()) else ()
    return incoming(frame, body, fingerprint="f" * 16, trust="first-use", flags=flags, redelivered=True)


Printed = Callable[[], str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    return lambda: "".join(capsys.readouterr())


@pytest.mark.parametrize(("as_json", "render"), [(True, "line"), (False, "line"), (False, "fenced")])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(found=st.lists(messages(), max_size=8), limit=st.integers(1, 8), chars=st.integers(LEAST_CHARS, 6_000))
def test_one_call_never_prints_more_than_it_was_allowed(
    as_json: bool, render: str, found: list[Message], limit: int, chars: int, printed: Printed
) -> None:
    screen = Screen(as_json=as_json, flags=FLAGS)
    budget = Budget(chars - footer_chars(screen, next_command(OPTIONS)), cost_on(screen, render))

    page = page_of(found, limit, budget)
    show_page(screen, page, render, next_command(OPTIONS), RelayUnreachable("gone"))

    output = printed()
    assert len(output) <= chars
    assert bool(page.messages) == bool(found)  # every call gets on
    last = output.splitlines()[-1]
    assert ("more_waiting" in last) if as_json else (("more waiting" in last) == (len(page.messages) < len(found)))
    assert as_json or ("cut ones" in last) == page.truncated


@pytest.mark.parametrize("as_json", [True, False])
def test_one_huge_message_is_a_preview_and_can_be_read_in_pieces_of_the_same_budget(
    as_json: bool, printed: Printed
) -> None:
    text = 'say "no"\n' * 7_000
    frame = Frame(1, Username("alice"), Username("bobby"), MessageId(bytes(16)), "message", 1)
    huge = incoming(
        frame, Body("text", bytes(16), 1, 1, text=text), fingerprint="", trust="pinned", flags=(), redelivered=False
    )
    screen = Screen(as_json=as_json)

    show_page(screen, page_of([huge], 20, Budget(1_000, cost_on(screen, "line"))), "line", "aimessage inbox")
    assert len(printed()) <= LEAST_CHARS

    offset: int | None = 0
    read = ""
    while offset is not None:
        piece = piece_of(huge, Budget(2_000, cost_on(screen, "line")), offset)
        show_message(screen, piece, "line", named=True)
        assert len(printed()) <= 2_000
        read += piece.text or ""
        offset = piece.next_offset
    assert read == text


def test_the_last_line_of_a_page_is_an_object_of_its_own(printed: Printed) -> None:
    show_page(Screen(as_json=True), InboxPage((), None, more_waiting=False, truncated=False), "line", "aimessage inbox")

    assert json.loads(printed()) == {
        "v": 1, "type": "inbox", "count": 0, "cursor": None, "more_waiting": False, "truncated": False, "trouble": None,
    }  # fmt: skip


def test_the_next_page_is_named_as_a_command_that_can_be_run(printed: Printed) -> None:
    page = InboxPage((), "17", more_waiting=True, truncated=False)
    show_page(Screen(as_json=False, flags=(("--agent", "bob"),)), page, "line", next_command(OPTIONS))

    assert printed() == "-- 0 messages; more waiting: aimessage inbox --agent bob --state all --peek --cursor 17\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(
    found=st.lists(messages() | st.text(max_size=2_000), max_size=8),
    limit=st.integers(1, 8),
    chars=st.integers(LEAST_CHARS, 6_000),
    as_json=st.booleans(),
)
def test_history_keeps_to_its_budget_and_begins_with_the_newest(
    found: list[Message | str], limit: int, chars: int, as_json: bool, printed: Printed
) -> None:
    entries = [
        Entry(f"{at}r{at}", received=each) if isinstance(each, Message) else Entry(f"{at}s{'0' * 32}", sent=ours(each))
        for at, each in enumerate(found)
    ]

    show_history(Screen(as_json=as_json), entries, limit, chars)

    output = printed()
    assert len(output) <= chars
    lines = [line for line in output.splitlines() if not line.startswith("    ")]
    assert (len(lines) > 1) == bool(found)
    if as_json:
        *shown, last = (json.loads(line) for line in lines)
        assert [each["cursor"] for each in shown] == [entry.cursor for entry in entries[len(entries) - len(shown) :]]
        assert last["more_waiting"] == (len(shown) < len(entries))
        assert last["truncated"] == any(each.get("truncated") for each in shown)


def ours(text: str) -> Fate:
    return Fate("a" * 26, "b" * 32, "undecryptable", "undecryptable", None, None, None, 1, bytes=len(text), text=text)


def test_the_room_kept_for_the_last_line_holds_every_code_that_may_stand_there() -> None:
    codes = [getattr(errors, name).code for name in errors.__all__ if name[0].isupper()]

    assert max(map(len, codes)) <= 32
