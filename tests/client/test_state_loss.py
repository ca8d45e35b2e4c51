"""What a lost, copied or rolled-back vault costs: nothing that its peers still keep, and never in silence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from aimessage.client import Agent, Message, Settings, connect, control, restore, shelf
from aimessage.client.account import Here, open_here
from aimessage.client.changes import Changes
from aimessage.client.connection import Connection
from aimessage.client.consumers import Filter, acknowledge, asked_among, claim, settled_among
from aimessage.client.fates import rise
from aimessage.client.handover import Handover
from aimessage.client.inbox import take_in
from aimessage.client.order import HOLD_MS
from aimessage.client.profile import load_profile
from aimessage.client.reading import Budget, slice_of
from aimessage.client.subscription import Subscription
from aimessage.e2ee.bodies import Body
from aimessage.e2ee.reports import encode_retry
from aimessage.errors import PeerIdentityChanged
from aimessage.types import MessageId, Username, parse_message_id
from aimessage.wire.frames import Deliver, Done, StoreState
from support.island import Island, Islander
from support.machines import QUIET, Machine, eventually, heard
from support.relay import running_relay


@asynccontextmanager
async def running_listen(settings: Settings) -> AsyncIterator[list[str]]:
    """Listen in the background; yield the texts heard so far."""
    texts: list[str] = []

    async def run() -> None:
        async with connect(settings) as me, aclosing(me.listen()) as messages:
            async for message in messages:
                texts.append(str(message.text))

    task = asyncio.create_task(run())
    try:
        yield texts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def deliveries_for(machine: Machine, count: int) -> list[Deliver]:
    """Return what the relay holds for this agent, without acknowledging it."""
    here = machine.here()
    connected = await Connection(here).get()
    assert await Subscription(here, connected, Changes(here.vault), Handover()).begin(publish=False)
    found: list[Deliver] = []
    async with asyncio.timeout(60):
        while len(found) < count:
            [frame] = await connected.pushes.take(1)
            found += [frame] if isinstance(frame, Deliver) else []
    connected.link.close()
    here.close()
    return found


async def test_a_container_that_starts_from_its_token_alone_receives_what_was_sent_meanwhile(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "before")
        assert [message.text for message in await bobby.heard(1)] == ["before"]
        await alice.send("bobby", *(f"meanwhile {number}" for number in range(8)))
        async with running_listen(alice.settings):
            messages = await heard(bobby.container(tmp_path / "fresh"), 8)
            assert [message.text for message in messages] == [f"meanwhile {number}" for number in range(8)]
            assert {message.type for message in messages} == {"message"}
        # Both know each other again: no further first contact, no further request.
        async with connect(bobby.container(tmp_path / "fresh")) as you:
            await you.send("alice", "back again")
        assert [message.text for message in await alice.heard(1)] == ["back again"]


async def test_a_sender_that_comes_back_later_sends_again_then(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "sealed for a vault that is gone")
        async with connect(bobby.container(tmp_path / "fresh")) as you:
            assert await you.wait(timeout=1) == []  # nothing that it could show; it asked
        async with connect(alice.settings) as me:
            await me.wait(timeout=1)
            (mine,) = [entry.sent for entry in me.history() if entry.sent]
            assert (mine.state, mine.attempts) == ("accepted", 2)
        texts = [message.text for message in await heard(bobby.container(tmp_path / "fresh"), 1)]
        assert texts == ["sealed for a vault that is gone"]


async def test_pins_and_gate_come_back_with_the_state(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby, carol = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby", "carol")
        await alice.send("bobby", "hello")
        await carol.send("bobby", "hello")
        async with running_listen(bobby.settings) as texts:

            async def both() -> bool:
                here = bobby.here()
                with here.vault.transaction() as vault:
                    stored = vault.counter("state_stored") == vault.counter("state_changes") > 0
                here.close()
                return stored and len(texts) == 2

            await eventually(both)
        container = bobby.container(tmp_path / "fresh")
        await restore(container, "bobby")
        here = open_here(load_profile(container), None)
        with here.vault.transaction() as vault:
            assert vault.peer_names() == ["alice", "carol"] and vault.meta("gate") == b"open"
            peer = vault.peer(here.address(Username("alice")))
            peer.pin = bytes(64)  # what the container trusts is what the state says
            vault.save_peer(peer)
        here.close()
        async with connect(container) as you:
            with pytest.raises(PeerIdentityChanged):
                await you.send("alice", "to another key")


async def test_without_a_state_strangers_have_to_wait_for_a_word(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        (bobby,) = await Machine.enrolled(tmp_path / "home", url, "bobby")
        here = bobby.here()
        link = await Connection(here).link()
        await link.request(lambda request_id: StoreState(request_id, 99, b"nothing that the token opens"), Done)
        here.close()
        container = bobby.container(tmp_path / "fresh")
        await restore(container, "bobby")
        here = open_here(load_profile(container), None)
        with here.vault.transaction() as vault:
            assert vault.meta("gate") == b"contacts"
        here.close()


async def test_a_rolled_back_vault_notices_and_goes_on_as_another(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "one")
        await bobby.heard(1)
        bobby.snapshot(tmp_path / "snapshot")
        await alice.send("bobby", "two")
        await bobby.heard(1)
        await bobby.send("alice", "from the lost hours")
        bobby.roll_back(tmp_path / "snapshot")
        notices: list[str] = []
        async with running_listen(alice.settings) as texts, connect(bobby.settings, notice=notices.append) as you:
            await alice.send("bobby", "three")
            assert [message.text for message in await you.wait(timeout=30)] == ["three"]
            await you.send("alice", "still bobby")

            async def both() -> bool:
                return texts == ["from the lost hours", "still bobby"]

            await eventually(both)
        assert len(notices) == 1 and "rolled back" in notices[0]


async def test_two_copies_of_one_vault_never_repeat_a_key_and_one_goes_on_as_another(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "hello")
        await bobby.heard(1)
        bobby.snapshot(tmp_path / "copy" / "agents" / "bobby")
        copy = Machine(tmp_path / "copy", "bobby", url)
        notices: list[str] = []
        async with running_listen(alice.settings) as texts:
            await bobby.send("alice", "from the first")
            async with connect(bobby.settings) as first:
                await first.wait(timeout=0.5)
            await copy.send("alice", "from the second")  # the same ratchet step, another salt: it cannot open there …
            async with connect(copy.settings, notice=notices.append) as second:  # … is asked for again, and sent again

                async def both() -> bool:
                    await second.wait(timeout=0.5)
                    return sorted(texts) == ["from the first", "from the second"]

                await eventually(both)
        assert notices


async def opened_pair(tmp_path: Path, url: str) -> tuple[Here, MessageId, bytes]:
    """Return alice's vault, with one accepted message to bobby, its id and bobby's pin."""
    alice, _ = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
    async with connect(alice.settings) as me:
        sent = await me.send("bobby", "a secret")
    here = alice.here()
    with here.vault.transaction() as vault:
        pin = vault.peer(here.address(Username("bobby"))).pin
    return here, parse_message_id(sent.id), pin or b""


def ask_again(here: Here, peer: str, pin: bytes, *ids: MessageId) -> int:
    """Have a retry request come from *peer* under *pin*; return how many messages wait to leave."""
    with here.vault.transaction() as vault:
        body = Body("retry", bytes(16), 0, 0, report=encode_retry(ids))
        control.heed(here, vault, vault.peer(here.address(Username(peer))), pin, body)
        (count,) = vault.run("SELECT count(*) FROM outbox").fetchone()
    return int(count)


async def test_a_retry_is_honoured_only_for_the_key_that_the_message_was_sealed_for(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        here, message_id, pin = await opened_pair(tmp_path, url)
        assert ask_again(here, "bobby", bytes(64), message_id) == 0
        assert ask_again(here, "mallory", pin, message_id) == 0
        assert ask_again(here, "bobby", pin, MessageId(bytes(16))) == 0
        assert ask_again(here, "bobby", pin, message_id) == 1
        here.close()


async def test_a_retry_is_honoured_three_times_and_never_after_delivery(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        here, message_id, pin = await opened_pair(tmp_path, url)
        for attempt in (1, 2, 3):
            assert ask_again(here, "bobby", pin, message_id) == 1
            with here.vault.transaction() as vault:
                assert vault.run("SELECT attempt FROM outbox").fetchone() == (attempt,)
                vault.run("DELETE FROM outbox")
        assert ask_again(here, "bobby", pin, message_id) == 0
        with here.vault.transaction() as vault:
            assert vault.run("SELECT fate, body FROM sent").fetchone() == ("undecryptable", None)
            rise(here, vault, Username("bobby"), pin, [message_id], "delivered")  # only the recipient knows
            assert vault.run("SELECT fate FROM sent").fetchone() == ("delivered",)
        assert ask_again(here, "bobby", pin, message_id) == 0
        here.close()


async def told_that_it_did_not_open(you: Agent, here: Here) -> Message:
    """Let a while pass for what was asked for again, and return what is told then."""
    assert await you.wait(timeout=1) == []
    with here.vault.transaction() as vault:
        vault.run("UPDATE inbox SET due = due - ? WHERE state = 'asked'", (shelf.ASKED_MS,))
    (told,) = await you.wait(timeout=45)
    return told


async def test_what_stays_unopened_is_told_after_a_while(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "lost for good")
        container = bobby.container(tmp_path / "fresh")
        async with connect(container) as you:
            here = open_here(load_profile(container), None)
            told = await told_that_it_did_not_open(you, here)
            here.close()
            assert (told.type, told.from_, told.text, told.flags) == (
                "undecryptable",
                "alice",
                None,
                ("undecryptable",),
            )


async def test_what_came_again_after_it_was_told_is_read_and_acknowledged_for_itself(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "not lost for good")
        container = bobby.container(tmp_path / "fresh")
        async with connect(container) as you:
            here = open_here(load_profile(container), None)
            told = await told_that_it_did_not_open(you, here)
            async with connect(alice.settings) as me:
                waiting = asyncio.create_task(me.wait(timeout=45))  # it takes the question in, and answers
                (message,) = await you.wait(timeout=45, keep=True)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            piece, _ = slice_of(here, message.id, Budget(), 0)
            acknowledge(here, parse_message_id(message.id))
            with here.vault.reading() as vault:
                rows = vault.run("SELECT kind, state FROM inbox ORDER BY row").fetchall()
            here.close()
    assert (told.id, told.type, message.text) == (message.id, "undecryptable", "not lost for good")
    assert piece.text == "not lost for good"
    assert rows == [("undecryptable", "shown"), ("message", "handled")]


async def test_a_message_that_the_relay_lost_is_seen_as_a_gap(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        await alice.send("bobby", "first", "second", "third", "fourth")
        first, second, third, fourth = await deliveries_for(bobby, 4)
        here = bobby.here()
        take_in(here, [second, fourth])
        assert claim(here, Filter(), 10) == []  # both wait for what comes before them
        take_in(here, [first])
        assert [message.text for _, message in claim(here, Filter(), 10)] == ["first", "second"]
        with here.vault.transaction() as vault:
            vault.run("UPDATE inbox SET due = due - ? WHERE state = 'held'", (HOLD_MS,))
        shown = [(message.text, message.flags) for _, message in claim(here, Filter(), 10)]
        assert shown == [("fourth", ("gap",))]
        take_in(here, [third])
        assert [(message.text, message.flags) for _, message in claim(here, Filter(), 10)] == [("third", ("late",))]
        here.close()


async def test_what_is_given_up_before_it_leaves_is_no_gap(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby, carol = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby", "carol")
        async with connect(carol.settings) as me:
            wrong = "bobby~" + me.address.partition("~")[2]
        async with connect(alice.settings) as me:
            await me.send("bobby", "one")
            with pytest.raises(PeerIdentityChanged):
                await me.send(wrong, "never left")
            await me.send("bobby", "two")
        assert [(message.text, message.flags) for message in await bobby.heard(2)] == [("one", ()), ("two", ())]


def test_the_relays_copy_of_what_did_not_open_stays_until_its_sender_was_asked(tmp_path: Path) -> None:
    island = Island()
    alice, bobby = Islander("alice", tmp_path, island), Islander("bobby", tmp_path, island)
    message_id = alice.save("bobby", "hello")
    alice.flush()
    bobby.lose_vault()
    mail, key = island.mailboxes["bobby"], ("alice", message_id)
    assert bobby.receive(mail) == []
    island.clock.pass_by(timedelta(seconds=61))
    bobby.read()
    assert [message.type for message in bobby.shown] == ["undecryptable"]
    assert bobby.receive(mail) == [] and settled_among(bobby.here, [key]) == set()
    assert asked_among(bobby.here, [key]) == {key}  # its copy counts among those that may be let go for want of room
    bobby.flush()
    assert bobby.receive(mail) == mail and settled_among(bobby.here, [key]) == {key}
    alice.receive(island.mailboxes["alice"])
    alice.flush()
    bobby.receive(island.mailboxes["bobby"])
    bobby.read()
    assert bobby.shown[-1].text == "hello"
    alice.here.close()
    bobby.here.close()
