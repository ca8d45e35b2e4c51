"""Every message has a fate that its sender can ask for and wait for."""

import asyncio
from contextlib import aclosing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from aimessage.client import Agent, Entry, Letter, Sent, connect
from aimessage.client.fates import _DUE, expire
from aimessage.client.outbox import Draft, save, save_all
from aimessage.clock import SystemClock
from aimessage.errors import BadValue, IdempotencyConflict, MailboxFull, MessageUnknown, RelayUnreachable, TimedOut
from aimessage.types import MessageId, Username, message_id_text
from support.machines import QUIET, Machine, eventually
from support.relay import running_relay

DAY_MS = 86_400_000


class ShiftedClock(SystemClock):
    """The machine's clock, set wrongly."""

    def __init__(self, shift: timedelta) -> None:
        self._shift = shift

    def now(self) -> datetime:
        return super().now() + self._shift


async def test_a_message_is_accepted_then_delivered_then_read_then_handled(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me, connect(bobby.settings) as you:
            sent = await me.send("bobby", "a task", wait_for="accepted", timeout=10)
            assert (sent.state, me.status(sent.id).text) == ("accepted", "a task")
            task = asyncio.create_task(me.send("bobby", "another", wait_for="handled", timeout=60))
            async with aclosing(you.listen(count=2, manual_ack=True)) as messages:
                async for message in messages:
                    if message.text == "another":
                        assert me.status(sent.id).state in ("accepted", "delivered", "read")
                        await message.ack()
            # The listener has ended: what it owes goes out with its agent's next command.
            await you.flush()
            assert (await task).state == "handled"
            assert me.status((await task).id).text is None  # erased once nobody can ask for it again


async def test_the_relays_copy_lives_until_the_consumer_acknowledges(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "dear")
        async with connect(bobby.settings) as you, aclosing(you.listen(manual_ack=True)) as messages:
            message = await anext(messages)
            assert (message.text, message.redelivered) == ("dear", False)
        async with connect(alice.settings) as me:
            (mine,) = [entry.sent for entry in me.history() if entry.sent]
            assert await me.refresh() and me.status(mine.id).state == "accepted"  # the consumer ended without a word
        # The vault is lost; only because the relay and the sender kept theirs, nothing is.
        container = bobby.container(tmp_path / "other")
        async with (
            connect(alice.settings) as me,
            connect(container) as again,
            aclosing(me.listen()) as answers,
            aclosing(again.listen(manual_ack=True)) as messages,
        ):
            answering = asyncio.ensure_future(anext(answers))
            message = await anext(messages)
            assert message.text == "dear"
            await message.ack()

            async def delivered() -> bool:
                return me.status(mine.id).state == "delivered"

            await eventually(delivered)
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


async def test_a_consumer_that_ends_without_a_word_is_followed_by_another(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "one", "two")
        async with connect(bobby.settings) as you, aclosing(you.listen(manual_ack=True)) as messages:
            first = await anext(messages)
            await first.ack()
            assert (await anext(messages)).text == "two"
        async with connect(bobby.settings) as you:
            again = await you.wait()
            assert [(message.text, message.redelivered) for message in again] == [("two", True)]
            assert await you.wait(timeout=0.1) == []


async def test_what_was_read_is_told_only_to_those_who_asked(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me, connect(bobby.settings) as you:
            plain = await me.send("bobby", "plain")
            reading = asyncio.create_task(me.send("bobby", "asked", wait_for="read", timeout=60))
            async with aclosing(you.listen()) as messages:
                assert [(await anext(messages)).text for _ in range(2)] == ["plain", "asked"]
                following = asyncio.ensure_future(anext(messages))
                assert (await reading).state == "read"
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            assert me.status(plain.id).state == "delivered"


async def test_a_fate_that_does_not_come_is_a_time_out_that_names_the_message(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, _ = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me:
            with pytest.raises(TimedOut) as caught:
                await me.send("bobby", "nobody is there", wait_for="delivered", timeout=0.5)
            assert caught.value.message_id is not None
            assert me.status(caught.value.message_id).state == "accepted"
            with pytest.raises(MessageUnknown):
                me.status("a" * 26)


async def test_a_login_does_not_walk_through_all_that_was_sent(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        [alice] = await Machine.enrolled(tmp_path / "home", url, "alice")
        here = alice.here()
        with here.vault.reading() as vault:
            plan = vault.run(f"EXPLAIN QUERY PLAN {_DUE}", (0, 0)).fetchall()
        here.close()
        assert "USING INDEX sent_open (relay_due<?)" in str(plan)


async def test_one_key_in_one_commit_is_one_message(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me:
            await me.send("bobby", "first")
            sends = [me.send("bobby", "pay", idempotency_key="order-8") for _ in range(20)]
            sends.append(me.send("bobby", "pay more", idempotency_key="order-8"))
            *same, other = await asyncio.gather(*sends, return_exceptions=True)
        assert len({each.id for each in same if isinstance(each, Sent)}) == 1
        assert isinstance(other, IdempotencyConflict)
        assert [message.text for message in await bobby.heard(2)] == ["first", "pay"]


async def test_an_id_that_was_chosen_is_one_message_within_a_commit_and_behind_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        [alice] = await Machine.enrolled(tmp_path / "home", url, "alice")
        here, chosen = alice.here(), MessageId(b"c" * 16)
        drafts = [Draft(Username("bobby"), Letter(text), chosen=chosen) for text in ("pay", "pay", "pay more")]
        first, again, other = save_all(here, drafts)
        [behind] = save_all(here, drafts[:1])
        here.close()
        assert first == again == behind == chosen
        assert isinstance(other, IdempotencyConflict)


async def test_many_sends_at_once_go_on_with_what_an_ended_process_left(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        here = alice.here()
        left = [save(here, Username("bobby"), Letter(f"text {at}")) for at in range(10)]
        here.close()
        async with connect(alice.settings) as me:
            sent = await asyncio.gather(*(me.send("bobby", f"text {at}") for at in range(15)))
        assert [each.id for each in sent[:10]] == [message_id_text(each) for each in left]
        assert [message.text for message in await bobby.heard(15)] == [f"text {at}" for at in range(15)]


async def test_the_same_idempotency_key_is_the_same_message(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby, _ = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby", "carol")
        async with connect(alice.settings) as me:
            first = await me.send("bobby", "pay once", idempotency_key="order-7")
            assert (await me.send("bobby", "pay once", idempotency_key="order-7")).id == first.id
            assert (await me.send("carol", "pay once", idempotency_key="order-7")).id != first.id
            with pytest.raises(IdempotencyConflict):
                await me.send("bobby", "pay twice", idempotency_key="order-7")
        assert [message.text for message in await bobby.heard(1)] == ["pay once"]
        async with connect(bobby.settings) as you:
            assert await you.wait(timeout=0.2) == []


async def test_an_identical_send_goes_on_with_what_an_earlier_command_gave_up(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        away = Machine(tmp_path / "home", "alice", "ws://127.0.0.1:9")
        ids = []
        for _ in range(2):
            async with connect(away.settings) as me:
                with pytest.raises(RelayUnreachable) as caught:
                    await me.send("bobby", "status?", timeout=0.2)
                ids.append(caught.value.message_id)
        async with connect(alice.settings) as me:
            sent = await me.send("bobby", "status?")
            assert [sent.id] * 2 == ids
            assert (await me.send("bobby", "status?")).id != sent.id  # that one had left: this is a new question
        assert len(await bobby.heard(2)) == 2


async def test_equal_messages_of_living_commands_are_two(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as one, connect(alice.settings) as other:
            sent = await asyncio.gather(one.send("bobby", "tick"), other.send("bobby", "tick"))
            assert len({each.id for each in sent}) == 2
        assert len(await bobby.heard(2)) == 2


async def test_only_both_clocks_together_declare_a_message_expired(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, _ = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me:
            sent = await me.send("bobby", "for an hour", ttl=timedelta(hours=1))
        here = alice.here()
        now = here.now_ms

        def fate_at(ours: int, relays: int) -> str:
            with here.vault.transaction() as vault:  # as if it had been sent that long ago by our clock
                vault.run("UPDATE sent SET saved_at = saved_at - ?, expires_at = expires_at - ?", (ours, ours))
            expire(here, now + relays)
            with here.vault.transaction() as vault:
                vault.run("UPDATE sent SET saved_at = saved_at + ?, expires_at = expires_at + ?", (ours, ours))
                return str(vault.run("SELECT fate FROM sent").fetchone()[0])

        for ours, relays in (
            (DAY_MS * 3650, 0),
            (-DAY_MS * 3650, 0),
            (0, DAY_MS * 3650),
            (0, -DAY_MS * 3650),
            (5_400_000, 5_400_000),
        ):
            assert fate_at(ours, relays) == "accepted"
        assert fate_at(7_300_000, 7_300_000) == "expired"
        here.close()
        async with connect(alice.settings) as me:
            assert (me.status(sent.id).state, me.status(sent.id).text) == ("expired", None)


async def test_a_full_mailbox_keeps_the_message_for_later(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET, mailbox_messages="2", mailbox_sender_share="0") as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "one", "two")
        with pytest.raises(MailboxFull) as caught:
            await alice.send("bobby", "three")
        assert caught.value.message_id
        assert len(await bobby.heard(2)) == 2
        async with connect(alice.settings) as me:
            await me.send("bobby", "four")
            assert me.status(caught.value.message_id).state == "accepted"
        assert [message.text for message in await bobby.heard(2)] == ["three", "four"]


async def test_history_is_read_in_pages_that_lose_and_repeat_nothing(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", *(f"to bobby {number}" for number in range(5)))
        await bobby.send("alice", *(f"to alice {number}" for number in range(5)))
        await alice.heard(5)
        async with connect(alice.settings) as me:
            whole = me.history()
            assert len(whole) == 10
            assert [entry.received.text for entry in whole if entry.received] == [f"to alice {at}" for at in range(5)]
            pages: list[Entry] = []
            before = None
            while page := me.history(limit=3, before=before):
                assert len(page) <= 3
                pages = page + pages
                before = page[0].cursor
            assert pages == whole
            with pytest.raises(BadValue):
                me.history(before="yesterday")


@pytest.mark.parametrize("jump", [-3650, -1, 1, 3650])
async def test_a_wrong_clock_ends_no_message_early(tmp_path: Path, jump: int) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "hello")  # a bundle is only good at its time; a session that stands does not care
        await bobby.heard(1)
        here = alice.here()
        wrong = replace(here, clock=ShiftedClock(timedelta(days=jump)))
        async with Agent(wrong) as me:
            sent = await me.send("bobby", "for an hour", ttl=timedelta(hours=1))
            (message,) = await bobby.heard(1)
            assert message.text == "for an hour"
            await me.refresh()
            assert me.status(sent.id).state == "delivered"


async def test_a_wanted_thread_is_found_behind_many_others(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me, connect(bobby.settings) as you:
            for number in range(12):
                await me.send("bobby", f"noise {number}", thread="noise")
            await me.send("bobby", "wanted", thread="work")
            (found,) = await you.wait(thread="work", limit=2, timeout=30)
            assert found.text == "wanted"
            assert len(await you.wait(timeout=45)) == 12


async def test_a_wait_that_cannot_reach_the_relay_says_so_instead_of_nothing_came(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
    alone = Machine(tmp_path / "home", "alice", url)
    async with connect(alone.settings) as me:
        with pytest.raises(RelayUnreachable):
            await me.wait(timeout=0.5)
        with pytest.raises(RelayUnreachable) as caught:
            await me.ask("bobby", "anybody?", timeout=0.5)
        assert caught.value.message_id is not None


async def test_no_time_to_live_is_no_message(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, _ = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me:
            with pytest.raises(BadValue):
                await me.send("bobby", "gone before it is there", ttl=timedelta(0))
