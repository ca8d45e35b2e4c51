"""A page of the inbox keeps to its budget and gets on; what was left out is said, and can be had."""

from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.client import Message, connect
from aimessage.client.reading import PREVIEW_CHARS, Budget, InboxPage, page_of, said_chars
from aimessage.errors import BadValue, MessageUnknown, RelayUnreachable
from support.machines import QUIET, Machine
from support.relay import running_relay


def message(number: int, text: str, thread: str | None = None) -> Message:
    return Message(
        id=f"{number:026}", cursor=str(number), from_="alice", from_fingerprint=None, from_trust="pinned", to="bobby",
        received_at=None, text=text, thread=thread, bytes=len(text.encode()),
    )  # fmt: skip


def texts(page: InboxPage) -> list[str | None]:
    return [each.text for each in page.messages]


@given(
    st.lists(st.tuples(st.text(max_size=600), st.none() | st.text(max_size=200)), max_size=12),
    st.integers(1, 10),
    st.integers(1, 3_000),
)
def test_no_page_costs_more_than_its_budget_and_nothing_is_left_out_in_silence(
    said: list[tuple[str, str | None]], limit: int, chars: int
) -> None:
    found = [message(number, text, thread) for number, (text, thread) in enumerate(said)]

    page = page_of(found, limit, Budget(chars))

    assert sum(said_chars(each) for each in page.messages) <= chars
    assert len(page.messages) <= limit
    assert bool(page.messages) == bool(found)  # every page gets on
    assert page.more_waiting == (len(page.messages) < len(found))
    for shown, whole in zip(page.messages, found, strict=False):
        is_whole = (shown.text, shown.thread) == (whole.text, whole.thread)
        assert shown.truncated == (not is_whole)
        assert (whole.text or "").startswith(shown.text or "")
        assert shown.bytes == whole.bytes
    assert page.truncated == any(each.truncated for each in page.messages)


def test_what_the_previews_leave_shows_the_oldest_messages_whole() -> None:
    page = page_of([message(1, "a" * 1_000), message(2, "b" * 1_000)], 20, Budget(1_500))

    assert texts(page) == ["a" * 1_000, "b" * PREVIEW_CHARS]
    assert [each.truncated for each in page.messages] == [False, True]


async def test_inbox_lists_what_waits_once_and_peek_changes_nothing(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "one", "two", "three")
        async with connect(bobby.settings) as me:
            peeked = [texts(await me.inbox(peek=True)) for _ in range(2)]
            first = await me.inbox(limit=2)
            second = await me.inbox()
            third = await me.inbox()
            earlier = await me.inbox(state="shown")

    assert peeked == [["one", "two", "three"]] * 2
    assert (texts(first), first.more_waiting) == (["one", "two"], True)
    assert (texts(second), second.more_waiting) == (["three"], False)
    assert (texts(third), third.cursor, third.more_waiting) == ([], None, False)
    assert texts(earlier) == ["one", "two", "three"]


async def test_a_cursor_goes_on_where_the_page_before_ended(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", *(f"number {number}" for number in range(5)))
        pages, cursor = [], None
        async with connect(bobby.settings) as me:
            while (page := await me.inbox(limit=2, peek=True, cursor=cursor)).messages:
                pages.append(texts(page))
                cursor = page.cursor
            with pytest.raises(BadValue):
                await me.inbox(cursor="7; DROP")
            with pytest.raises(BadValue):
                await me.inbox(state="lost")

    assert pages == [["number 0", "number 1"], ["number 2", "number 3"], ["number 4"]]


async def test_what_was_kept_and_not_shown_comes_again(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "one")
        async with connect(bobby.settings) as me:
            await me.inbox(keep=True)
        async with connect(bobby.settings) as me:
            again = await me.inbox()

    assert [(each.text, each.redelivered) for each in again.messages] == [("one", True)]


async def test_a_long_message_is_read_in_pieces_that_join_to_the_whole(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + number) for number in range(5_000))
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", text)
        pieces, offset = [], 0
        async with connect(bobby.settings) as me:
            page = await me.inbox(max_chars=300)
            while True:
                piece = await me.read(page.messages[0].id, max_chars=999, offset=offset)
                pieces.append(piece.text or "")
                if piece.next_offset is None:
                    break
                offset = piece.next_offset
            whole = await me.read(page.messages[0].id)
            with pytest.raises(BadValue):
                await me.read(page.messages[0].id, offset=5_001)
            with pytest.raises(MessageUnknown):
                await me.read("a" * 26)

    assert texts(page) == [text[:PREVIEW_CHARS]]
    assert page.truncated
    assert page.messages[0].bytes == 15_000
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 999
    assert (whole.text, whole.truncated, whole.next_offset) == (text, False, None)


async def test_reading_a_message_is_being_shown_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me, connect(bobby.settings) as you:
            sent = await me.send("bobby", "look at this")
            peeked = await you.inbox(peek=True)
            read = await you.read(peeked.messages[0].id)
            left = await you.inbox()

    assert (read.text, read.id, read.as_json()["next_offset"]) == ("look at this", sent.id, None)
    assert left.messages == ()


async def test_without_a_relay_what_is_here_is_listed_and_an_empty_inbox_says_why(tmp_path: Path) -> None:
    async with running_relay(tmp_path / "relay", **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "one")
        async with connect(bobby.settings) as me:
            await me.inbox(peek=True)
    async with connect(bobby.settings) as me:
        page = await me.inbox()
        with pytest.raises(RelayUnreachable):
            await me.inbox()

    assert texts(page) == ["one"]


async def test_looking_takes_nothing_from_a_listen_of_the_same_process(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "one")
        async with connect(bobby.settings) as me, aclosing(me.listen(manual_ack=True)) as messages:
            held = await anext(messages)
            listed = await me.inbox(state="all")
            await me.read(held.id)
        async with connect(bobby.settings) as me:
            again = await me.inbox()

    assert texts(listed) == ["one"]
    assert [(each.text, each.redelivered) for each in again.messages] == [("one", True)]
