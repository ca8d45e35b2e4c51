"""Many messages in one call: in order, each with its own outcome, none lost and none twice, whatever the relay does."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from aimessage.client import Agent, Letter, Message, Sent, Settings, connect, dispatch, fates
from aimessage.errors import (
    AimessageError,
    BadValue,
    IdempotencyConflict,
    MailboxFull,
    PeerIdentityChanged,
    RecipientUnknown,
    Temporary,
    TextNotAllowed,
    UsernameMalformed,
    VaultUnavailable,
)
from aimessage.types import MessageId
from support.machines import QUIET, enrolled, eventually, heard
from support.relay import running_relay

MANY = 700


async def waiting(me: Agent) -> list[Message]:
    """Return what has come and was not shown, all of it."""
    found: list[Message] = []
    while page := await me.wait(timeout=0.5):
        found += page
    return found


def ids(outcomes: list[Sent | AimessageError]) -> list[str]:
    assert all(isinstance(each, Sent) and each.state == "accepted" for each in outcomes), outcomes
    return [each.id for each in outcomes if isinstance(each, Sent)]


async def test_many_messages_to_several_arrive_once_and_in_order(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby, carol = await enrolled(tmp_path, url, "alice", "bobby", "carol")
        messages = [(("bobby", "carol")[number % 2], f"number {number}") for number in range(MANY)]
        async with connect(alice) as me:
            sent = await me.send_all(messages)
            assert [each.to for each in sent if isinstance(each, Sent)] == [to for to, _ in messages]
        assert len(set(ids(sent))) == MANY
        for each in (bobby, carol):
            pairs = zip(ids(sent), messages, strict=True)
            theirs = [(message_id, said) for message_id, (to, said) in pairs if to == each.agent]
            assert [(message.id, message.text) for message in await heard(each, MANY // 2)] == theirs
            async with connect(each) as me:
                assert await waiting(me) == []


async def test_they_keep_their_order_among_other_sends(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me, asyncio.TaskGroup() as group:
            group.create_task(me.send_all([("bobby", f"first {number}") for number in range(300)]))
            group.create_task(me.send_all([("bobby", f"second {number}") for number in range(300)]))
            for number in range(20):
                group.create_task(me.send("bobby", f"alone {number}"))
        texts = [str(message.text) for message in await heard(bobby, 620)]
        for call in ("first", "second", "alone"):
            of_call = [int(text.split()[1]) for text in texts if text.startswith(call)]
            assert of_call == list(range(20 if call == "alone" else 300))


async def test_the_trouble_of_one_is_told_in_its_place(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me:
            first, *errors, keyed, again, other, last = await me.send_all(
                [
                    ("bobby", "first"),
                    ("bobby", "\U0001f600"),
                    ("nobody-here", "x"),
                    ("no name", "x"),
                    ("alice", "to myself"),
                    ("bobby~" + "a" * 26, "for another key"),
                    ("bobby", Letter(data={"n": 1}, thread="t-1", idempotency_key="k")),
                    ("bobby", Letter(data={"n": 1}, thread="t-1", idempotency_key="k")),
                    ("bobby", Letter(data={"n": 2}, idempotency_key="k")),
                    ("bobby", "last"),
                ]
            )
        kinds = (TextNotAllowed, RecipientUnknown, UsernameMalformed, BadValue, PeerIdentityChanged)
        assert [type(each) for each in errors] == list(kinds)
        assert isinstance(errors[1], RecipientUnknown) and errors[1].hint
        assert isinstance(keyed, Sent) and keyed == again and isinstance(other, IdempotencyConflict)
        assert isinstance(first, Sent) and isinstance(last, Sent)
        told = await heard(bobby, 3)
        assert [(message.text, message.data) for message in told] == [("first", None), (None, {"n": 1}), ("last", None)]
        assert told[1].thread == "t-1"


async def test_without_a_relay_each_is_kept_and_goes_out_later_in_order(tmp_path: Path) -> None:
    stored = {"store": "rocksdb", "db_path": str(tmp_path / "relay")}
    async with running_relay(tmp_path, **stored, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
    messages = [("bobby", f"number {number}") for number in range(MANY)]
    async with connect(alice) as me:
        kept = await me.send_all(messages, timeout=timedelta(seconds=0.2))
    assert all(isinstance(each, Temporary) for each in kept)
    named = [each.message_id for each in kept if isinstance(each, AimessageError)]
    assert len(set(named)) == MANY
    assert all(str(each.message_id) in str(each.hint) for each in kept if isinstance(each, AimessageError))
    async with running_relay(tmp_path, port=url.rpartition(":")[2], **stored, **QUIET):
        async with connect(alice) as me:
            again = await me.send_all(messages[:3])  # the very same: adopted, not sent twice
            assert ids(again) == named[:3]
        assert [message.id for message in await heard(bobby, MANY)] == named
        async with connect(bobby) as me:
            assert await waiting(me) == []


async def test_a_full_mailbox_takes_the_first_and_the_others_are_kept(tmp_path: Path) -> None:
    async with running_relay(tmp_path, mailbox_bytes=str(128 << 10), mailbox_sender_share="1", **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me:
            outcomes = await me.send_all([("bobby", f"number {number} " + "x" * 500) for number in range(500)])
        accepted = [each for each in outcomes if isinstance(each, Sent)]
        full = [each for each in outcomes if isinstance(each, MailboxFull)]
        taken = len(accepted)
        assert 100 < taken < 300 and accepted == outcomes[:taken] and full == outcomes[taken:]
        first = [message.id for message in await heard(bobby, taken)]
        assert first == [each.id for each in accepted]
        later: list[str] = []
        while len(later) < len(full):  # what does not fit either goes out with the next command
            async with connect(alice) as me:
                await me.refresh()
                await me.flush()
            async with connect(bobby) as me:
                later += [message.id for message in await waiting(me)]
        assert later == [each.message_id for each in full]
        async with connect(alice) as me:
            last = await me.send("bobby", "at last")
        assert [(message.id, message.text) for message in await heard(bobby, 1)] == [(last.id, "at last")]


async def test_at_a_relays_pace_they_take_their_time(tmp_path: Path) -> None:
    async with running_relay(tmp_path, rate_connection="200", rate_global="400") as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me:
            sent = ids(await me.send_all([("bobby", f"number {number}") for number in range(500)], timeout=60))
        assert [message.id for message in await heard(bobby, 500)] == sent


async def test_a_link_that_breaks_in_the_middle_loses_none(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me, connect(bobby) as you:
            await me.send("bobby", "hello")

            async def cut() -> None:
                for _ in range(5):
                    await asyncio.sleep(0)
                    me._connection.close()  # as a network does that fails again and again
                    await me.users()  # which waits for the next one

            cutting = asyncio.create_task(cut())
            sent = await me.send_all([("bobby", f"number {number}") for number in range(MANY)], timeout=60)
            await cutting
            assert len(set(ids(sent))) == MANY
            texts = [message.text for message in await waiting(you)]
            assert texts == ["hello", *(f"number {number}" for number in range(MANY))]


async def test_a_vault_that_cannot_be_written_is_each_ones_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        [alice] = await enrolled(tmp_path, url, "alice")
        async with connect(alice) as me:
            me._here.vault._database.execute("PRAGMA query_only = 1")
            outcomes = await me.send_all([("bobby", "x")] * 200)
            assert [type(each) for each in outcomes] == [VaultUnavailable] * 200
        assert await _nothing(alice) == []


async def _nothing(who: Settings) -> list[Sent | AimessageError]:
    async with connect(who) as me:
        return await me.send_all([])


_CYCLE: list[object] = []
_CYCLE.append(_CYCLE)


@pytest.mark.parametrize(
    "data", [object(), float("nan"), {(1, 2): 3}, {"a": {1}}, _CYCLE], ids=lambda data: type(data).__name__
)
async def test_data_that_json_cannot_say_is_refused_at_once_and_harms_nobody_else(tmp_path: Path, data: object) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, _ = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me, asyncio.timeout(60):
            beside = asyncio.create_task(me.send("bobby", "in the same commit"))
            with pytest.raises(BadValue, match="JSON"):
                await me.send("bobby", data=data)
            assert (await beside).state == "accepted"
            refused, bare, sent = await me.send_all([("bobby", Letter(data=data)), ("bobby", data), ("bobby", "well")])  # type: ignore[list-item]
            assert isinstance(refused, BadValue) and isinstance(sent, Sent)
            assert isinstance(bare, BadValue) and "Letter" in str(bare.hint)


async def test_a_call_that_is_wrong_in_its_types_ends_with_an_error_and_does_not_hang(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, _ = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me, asyncio.timeout(60):
            with pytest.raises(AttributeError):
                await me.send("bobby", 5)  # type: ignore[arg-type]
            assert (await me.send("bobby", "five")).state == "accepted"


async def test_a_vault_that_fails_between_saving_and_sending_names_what_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me:

            def failing(*_: object, **__: object) -> list[MessageId]:
                raise VaultUnavailable("the vault cannot be used now: disk I/O error")

            with monkeypatch.context() as broken:
                broken.setattr(dispatch, "take_ready", failing)
                broken.setattr(fates, "waiting_among", failing)
                outcomes = await me.send_all([("bobby", "one"), ("bobby", "two")])
                with pytest.raises(VaultUnavailable) as raised:
                    await me.send("bobby", "three")
            named = [each.message_id for each in outcomes if isinstance(each, VaultUnavailable) and each.hint]
            named += [raised.value.message_id, (await me.send("bobby", "four")).id]
        assert [message.id for message in await heard(bobby, 4)] == named


async def test_an_agent_that_is_closed_keeps_what_has_not_left_and_says_so(tmp_path: Path) -> None:
    stored = {"store": "rocksdb", "db_path": str(tmp_path / "relay")}
    async with running_relay(tmp_path, **stored, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
    async with connect(alice) as me:  # the relay is away
        sending = [asyncio.create_task(me.send("bobby", text)) for text in ("one", "two")]

        async def both_are_saved() -> bool:
            return len([entry for entry in me.history() if entry.sent]) == 2

        await eventually(both_are_saved)
    kept = await asyncio.gather(*sending, return_exceptions=True)
    named = [each.message_id for each in kept if isinstance(each, Temporary) and str(each.message_id) in str(each.hint)]
    async with running_relay(tmp_path, port=url.rpartition(":")[2], **stored, **QUIET):
        async with connect(alice) as me:
            named.append((await me.send("bobby", "three")).id)
        assert [message.id for message in await heard(bobby, 3)] == named


async def test_an_agent_that_is_closed_before_a_message_is_saved_says_so(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, _ = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me:
            sending = asyncio.create_task(me.send("bobby", "hello"))
            await asyncio.sleep(0)  # it has begun, and its turn's commit is due
        [error] = await asyncio.gather(sending, return_exceptions=True)
        assert isinstance(error, Temporary) and error.hint and error.message_id is None
        async with connect(alice) as me:
            assert me.history() == []
