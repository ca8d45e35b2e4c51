"""Messages that share an envelope: each has its own id, fate and one effect, whatever becomes of the envelope."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from aimessage.client import Message, Sent, connect, consumers, control, fates, gate, outbox
from aimessage.client.account import open_here
from aimessage.client.consumers import Filter
from aimessage.client.history import history
from aimessage.client.inbox import take_in
from aimessage.client.letter import Letter
from aimessage.client.links import OpenLink
from aimessage.client.outbox import Draft
from aimessage.client.pins import pin_of
from aimessage.client.profile import load_profile
from aimessage.client.pushes import Pushes
from aimessage.client.sender import Sender
from aimessage.e2ee.bodies import BODY_BYTES, MOST_PARTS, Body, Receipts, batch_of, decode_body, encode_body
from aimessage.e2ee.reports import decode_receipts
from aimessage.errors import AimessageError, DecryptionFailed, Denied, MailboxFull, TooLarge
from aimessage.types import MessageId, Username, message_id_text
from aimessage.wire.frames import Deliver, MailClass, Post
from support.island import Island, Islander, IslandLink
from support.machines import QUIET, Machine, enrolled, heard
from support.relay import running_relay

BOBBY = Username("bobby")


class Pair:
    """Two agents who have met, and the relay's list between them."""

    def __init__(self, root: Path) -> None:
        self.island = Island()
        self.alice = Islander("alice", root, self.island)
        self.bobby = Islander("bobby", root, self.island)
        self.alice.save("bobby", "hello")
        self.settle()
        self.bobby.save("alice", "hello")
        self.settle()

    def save(self, *texts: str) -> list[MessageId]:
        """Save messages in one commit; they leave with the next `flush`."""
        found = outbox.save_all(self.alice.here, [Draft(BOBBY, Letter(text)) for text in texts], room=BODY_BYTES)
        ids = [MessageId(each) for each in found if isinstance(each, bytes)]
        outbox.let_go(self.alice.here, ids)
        return ids

    def mail(self, name: str = "bobby") -> list[Deliver]:
        """Return what waits at the relay."""
        return self.island.mailboxes.get(name, [])

    def settle(self, turns: int = 2) -> None:
        """Both send, receive and read, some times."""
        for _ in range(turns):
            for agent in (self.alice, self.bobby):
                agent.flush()
            for agent in (self.alice, self.bobby):
                done = agent.receive(self.mail(agent.name))
                self.island.mailboxes[agent.name] = [each for each in self.mail(agent.name) if each not in done]
                agent.read()

    def texts(self) -> list[str]:
        """Return what bobby has been shown, in order."""
        return [str(message.text) for message in self.bobby.shown if message.type == "message"][1:]

    def fates(self, ids: list[MessageId]) -> set[str | None]:
        return {self.alice.fate(message_id) for message_id in ids}

    def rows(self, table: str) -> int:
        """Return how many rows a table of alice's vault has."""
        with self.alice.here.vault.reading() as vault:
            return int(vault.run(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.alice.here.close()
    pair.bobby.here.close()


def test_what_one_commit_saves_leaves_in_one_envelope_and_arrives_as_its_messages(pair: Pair) -> None:
    texts = [f"number {number}" for number in range(100)]
    ids = pair.save(*texts)
    assert len(set(ids)) == 100 and pair.fates(ids) == {"waiting"} and pair.rows("outbox") == 1
    pair.alice.flush()
    [envelope] = pair.mail()
    assert envelope.message_id not in ids and pair.fates(ids) == {"accepted"}
    pair.settle()
    assert pair.texts() == texts
    assert [message.id for message in pair.bobby.shown[1:]] == [message_id_text(each) for each in ids]
    assert pair.fates(ids) == {"delivered"}
    assert pair.rows("batches") == 0  # and no word of them is kept


def test_what_waited_for_a_session_shares_envelopes_too_and_keeps_its_order(tmp_path: Path) -> None:
    island = Island()
    alice, bobby = Islander("alice", tmp_path, island), Islander("bobby", tmp_path, island)
    texts = [f"number {number}" for number in range(300)]
    for at, text in enumerate(texts):
        letter = Letter(text, ttl=timedelta(hours=1)) if at == 150 else Letter(text)  # which travels alone
        outbox.let_go(alice.here, [outbox.save(alice.here, BOBBY, letter)])
    alice.flush()
    assert 4 <= len(island.mailboxes["bobby"]) <= 6
    bobby.receive(island.mailboxes["bobby"])
    bobby.read()
    assert [message.text for message in bobby.shown] == texts
    assert {message.flags for message in bobby.shown} == {()}
    alice.here.close()
    bobby.here.close()


@pytest.mark.parametrize("length", [1, 3_000, 20_000])
@pytest.mark.parametrize("letter", ["x", "\N{GREEK SMALL LETTER OMEGA}", "\N{CJK UNIFIED IDEOGRAPH-4E00}"])
def test_whatever_their_length_all_fit(pair: Pair, length: int, letter: str) -> None:
    texts = [letter * length + str(number) for number in range(9)]
    ids = pair.save(*texts)
    pair.settle()
    assert pair.texts() == texts and pair.fates(ids) == {"delivered"}


def test_a_batch_that_comes_twice_has_one_effect(pair: Pair) -> None:
    pair.save("one", "two")
    pair.alice.flush()
    [envelope] = pair.mail()
    assert pair.bobby.receive([envelope, envelope]) == [envelope, envelope]
    assert pair.bobby.receive([envelope]) == [envelope]
    pair.bobby.read()
    assert pair.texts() == ["one", "two"]


def test_a_rolled_back_sender_that_puts_its_messages_into_other_envelopes_has_them_shown_once(
    pair: Pair, tmp_path: Path
) -> None:
    ids = [outbox.save(pair.alice.here, BOBBY, Letter(text)) for text in ("one", "two", "three")]
    outbox.let_go(pair.alice.here, ids)
    vault_path = pair.alice.here.profile.vault_path
    pair.alice.here.close()
    shutil.copy(vault_path, tmp_path / "before")
    pair.alice.crash()
    pair.alice.flush()
    [first] = pair.mail()
    pair.alice.here.close()
    shutil.copy(tmp_path / "before", vault_path)
    pair.alice.crash()
    pair.alice.save("bobby", "four")
    pair.alice.flush()
    [_, second] = pair.mail()
    assert first.message_id != second.message_id
    pair.settle(4)  # the second was sealed by a ratchet that bobby has passed: he asks for it again
    assert pair.texts() == ["one", "two", "three", "four"]
    assert pair.fates(ids) == {"delivered"}


def test_a_batch_that_does_not_open_comes_again_whole_under_its_messages_ids(pair: Pair) -> None:
    texts = ["one", "two", "three"]
    ids = pair.save(*texts)
    pair.alice.flush()
    pair.bobby.lose_vault()
    pair.settle(4)
    assert pair.texts()[-3:] == texts
    assert [message.type for message in pair.bobby.shown[1:]] == ["message"] * 3
    assert pair.fates(ids) == {"delivered"} and pair.rows("batches") == 0


def test_of_a_batch_that_is_asked_for_again_only_what_is_open_is_sealed_anew(pair: Pair) -> None:
    ids = pair.save("one", "two", "three")
    pair.alice.flush()
    with pair.alice.here.vault.transaction() as vault:
        pin = pin_of(vault.peer(pair.alice.here.address(BOBBY)).conversation.identity) or b""
        fates.rise(pair.alice.here, vault, BOBBY, pin, ids[:1], "handled")
    pair.bobby.lose_vault()
    pair.settle(4)
    assert pair.texts()[-2:] == ["two", "three"] and "one" not in pair.texts()
    assert pair.alice.fate(ids[0]) == "handled" and pair.fates(ids[1:]) == {"delivered"}


def test_a_batch_that_never_opens_ends_as_undecryptable_every_message_of_it(pair: Pair) -> None:
    ids = pair.save("one", "two")
    for _ in range(control.ATTEMPTS + 1):
        pair.alice.flush()
        pair.island.clock.pass_by(timedelta(hours=2))
        pair.bobby.lose_vault()
        pair.bobby.receive(pair.mail())
        pair.bobby.flush()
        pair.alice.receive(pair.mail("alice"))
    assert pair.fates(ids) == {"undecryptable"}
    assert pair.rows("batches WHERE bodies != x''") == 0 and pair.rows("outbox") == 0
    with pytest.raises(DecryptionFailed):
        fates.fate_of(pair.alice.here, ids[0])


def test_only_the_identity_that_a_batch_was_sealed_for_is_believed_of_it(pair: Pair) -> None:
    ids = pair.save("one", "two")
    pair.alice.flush()
    [envelope] = pair.mail()
    batch_id = MessageId(envelope.message_id)
    with pair.alice.here.vault.transaction() as vault:
        pin = pin_of(vault.peer(pair.alice.here.address(BOBBY)).conversation.identity) or b""
        for peer, claimed in ((Username("mallory"), pin), (BOBBY, bytes(64))):
            fates.rise(pair.alice.here, vault, peer, claimed, [batch_id], "handled")
            control._send_again(pair.alice.here, vault, peer, claimed, batch_id)
        control._send_again(pair.alice.here, vault, BOBBY, pin, ids[0])  # no envelope has this id
    assert pair.fates(ids) == {"accepted"} and pair.rows("outbox") == 0 and pair.rows("batches") == 1


def test_each_message_of_a_batch_can_be_looked_up_while_it_is_under_way_and_is_erased_when_it_is_over(
    pair: Pair,
) -> None:
    ids = pair.save("one", "two")
    here = pair.alice.here
    assert [fates.status(here, each).text for each in ids] == ["one", "two"]
    told = history(here, peer="bobby", limit=10, before=None)
    assert {"one", "two"} < {entry.sent.text for entry in told if entry.sent}
    with here.vault.transaction() as vault:
        fates.settle(here, vault, ids[0], "expired", "expired")
    assert [fates.status(here, each).text for each in ids] == [None, "two"]
    assert [fates.status(here, each).state for each in ids] == ["expired", "waiting"]
    pair.settle()
    assert pair.fates(ids) == {"delivered"}  # it had been sealed: only the recipient knows


def test_a_batch_expires_with_its_messages(pair: Pair) -> None:
    ids = pair.save("one", "two")
    pair.island.clock.pass_by(timedelta(days=31))
    pair.alice.look_at_the_clock()
    assert pair.fates(ids) == {"expired"} and pair.rows("outbox") == 0 and pair.rows("batches WHERE bodies != x''") == 0


def test_who_blocks_a_peer_takes_back_what_waits_for_it(pair: Pair) -> None:
    ids = pair.save("one", "two")
    with pair.alice.here.vault.transaction() as vault:
        gate.block(pair.alice.here, vault, BOBBY)
    assert pair.fates(ids) == {"refused"} and pair.rows("outbox") == 0 and pair.rows("batches WHERE bodies != x''") == 0


def test_a_sealed_batch_is_given_up_by_nobody(pair: Pair) -> None:
    ids = pair.save("one", "two")
    assert outbox.abandon(pair.alice.here, ids, DecryptionFailed("a trouble of its own")) == set()
    assert pair.fates(ids) == {"waiting"}


def test_of_a_strangers_batch_so_many_wait_as_of_its_lone_messages(tmp_path: Path) -> None:
    island = Island()
    alice, bobby = Islander("alice", tmp_path, island), Islander("bobby", tmp_path, island)
    with bobby.here.vault.transaction() as vault:
        gate.save_policy(vault, gate.Policy.CONTACTS)
    for number in range(20):
        alice.save("bobby", f"number {number}")
    alice.flush()
    assert len(bobby.receive(island.mailboxes["bobby"])) == 1
    bobby.flush()
    assert not island.mailboxes.get("alice")  # a stranger is told nothing
    bobby.read()
    assert [message.type for message in bobby.shown] == ["contact_request"]
    with bobby.here.vault.transaction() as vault:
        assert gate.accept(bobby.here, vault, Username("alice")) == gate.MESSAGES_OF_ONE
    bobby.read()
    assert [message.text for message in bobby.shown[1:]] == [f"number {at}" for at in range(gate.MESSAGES_OF_ONE)]
    alice.here.close()
    bobby.here.close()


async def test_the_relays_copy_of_a_batch_stays_until_each_message_is_acknowledged(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me, connect(bobby.settings) as you:
            await me.send("bobby", "hello")
            assert await you.wait()
            await you.send("alice", "hello")
            assert await me.wait()
            outcomes = await me.send_all([("bobby", text) for text in ("one", "two", "three")])
            sent = [each for each in outcomes if isinstance(each, Sent)]
            listening = you.listen(manual_ack=True)
            taken: list[Message] = [await anext(listening) for _ in sent]
            assert [message.text for message in taken] == ["one", "two", "three"]
            await taken[0].ack()
            await taken[1].ack()
            assert [(await sent[0].delivered()).state, (await sent[1].delivered()).state] == ["delivered"] * 2
            assert me.status(sent[2].id).state == "accepted"
            await listening.aclose()
        # A lost vault asks for the envelope again, and gets what nobody has acknowledged.
        async with connect(alice.settings) as me:
            container = bobby.container(tmp_path / "fresh")
            answering = asyncio.create_task(anext(me.listen()))
            async with connect(container) as you:
                [last] = await you.wait(timeout=30)
                assert (last.text, last.id) == ("three", sent[2].id)
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


def test_a_consumer_that_wants_acknowledgements_holds_the_envelope(pair: Pair) -> None:
    ids = pair.save("one", "two")
    pair.alice.flush()
    [envelope] = pair.mail()
    here, key = pair.bobby.here, ("alice", envelope.message_id)
    assert take_in(here, [envelope], until_handled=True) == [False]
    assert take_in(here, [envelope], until_handled=True) == [False]
    assert consumers.settled_among(here, [key]) == set()
    batch = consumers.claim(here, Filter(), 10)
    assert [message.id for _, message in batch] == [message_id_text(each) for each in ids]
    consumers.acknowledge(here, ids[0])
    assert consumers.settled_among(here, [key]) == set()
    consumers.acknowledge(here, ids[1])
    assert consumers.settled_among(here, [key]) == {key}
    consumers.forget_held(here, [key])
    assert take_in(here, [envelope], until_handled=True) == [True]
    pair.settle()
    assert pair.fates(ids) == {"delivered"}


# What a relay takes, and what a hostile peer or an unlucky vault makes of it.


async def test_a_relay_that_takes_small_bodies_gets_smaller_batches_or_none(tmp_path: Path) -> None:
    for body_bytes, most in ((4 << 10, 60), (16 << 10, 30)):
        async with running_relay(tmp_path / str(body_bytes), body_bytes=str(body_bytes), **QUIET) as url:
            alice, bobby = await enrolled(tmp_path / str(body_bytes), url, "alice", "bobby")
            async with connect(alice) as me:
                outcomes = await me.send_all([("bobby", f"{number} " + "x" * 200) for number in range(60)])
                assert [each.state for each in outcomes if isinstance(each, Sent)] == ["accepted"] * 60
            texts = [str(message.text) for message in await heard(bobby, 60)]
            assert [int(text.split()[0]) for text in texts] == list(range(60))
            here = open_here(load_profile(bobby), None)
            with here.vault.reading() as vault:
                (envelopes,) = vault.run("SELECT count(DISTINCT coalesce(envelope, id)) FROM inbox").fetchone()
            here.close()
            assert 1 < envelopes <= most


async def test_a_batch_that_was_sealed_for_a_larger_relay_is_taken_apart(tmp_path: Path) -> None:
    stored = {"store": "rocksdb", "db_path": str(tmp_path / "relay"), **QUIET}
    async with running_relay(tmp_path, **stored) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me, connect(bobby) as you:
            await me.send("bobby", "hello")
            assert await you.wait()
            await you.send("alice", "hello")
            assert await me.wait()
    here = open_here(load_profile(alice), None)
    drafts = [Draft(BOBBY, Letter(f"{number} " + "x" * 200)) for number in range(60)]
    ids = [each for each in outbox.save_all(here, drafts, room=BODY_BYTES) if isinstance(each, bytes)]
    with here.vault.reading() as vault:
        assert vault.run("SELECT count(*) FROM outbox").fetchone() == (1,)
    here.close()
    async with running_relay(tmp_path, port=url.rpartition(":")[2], body_bytes=str(4 << 10), **stored):
        async with connect(alice) as me:
            last = await me.send("bobby", "last")
            assert {me.status(message_id_text(MessageId(each))).state for each in ids} == {"accepted"}
        found = await heard(bobby, 61)
        assert [message.id for message in found] == [*(message_id_text(MessageId(each)) for each in ids), last.id]
        assert {message.flags for message in found} == {()}


def from_alice(pair: Pair, body: Body, message_id: MessageId | None = None, attempt: int = 0) -> Deliver:
    """Return what alice, who is free to say anything, seals for bobby."""
    here, message_id = pair.alice.here, message_id or MessageId(pair.alice.here.entropy(16))
    with here.vault.transaction() as vault:
        peer = vault.peer(here.address(BOBBY))
        peer.conversation, sealed = peer.conversation.seal(message_id, attempt, encode_body(body), entropy=here.entropy)
        vault.save_peer(peer)
    pair.island.positions += 1
    return Deliver(1, pair.island.positions, "alice", message_id, attempt, MailClass.MESSAGE, 0, 0, sealed)


def message(sequence: int, text: str = "x") -> Body:
    return Body("text", b"a vault of hers.", sequence, 1_700_000_000_000, text=text)


def an_id(number: int) -> MessageId:
    return MessageId(number.to_bytes(16, "big"))


def test_one_id_in_two_batches_of_one_commit_has_one_effect(pair: Pair) -> None:
    first = batch_of([(an_id(1), message(1, "one")), (an_id(2), message(2, "two"))])
    second = batch_of([(an_id(2), message(2, "two")), (an_id(2), message(3, "other")), (an_id(3), message(4, "four"))])
    pair.bobby.receive([from_alice(pair, first), from_alice(pair, second)])
    pair.island.clock.pass_by(timedelta(seconds=31))
    pair.bobby.read()
    assert pair.texts() == ["one", "two", "four"]


def test_a_part_under_its_envelopes_own_id_is_a_repetition(pair: Pair) -> None:
    batch = batch_of([(an_id(7), message(1, "one")), (an_id(8), message(2, "two"))])
    pair.bobby.receive([from_alice(pair, batch, an_id(7))])
    pair.island.clock.pass_by(timedelta(seconds=31))
    pair.bobby.read()
    assert pair.texts() == ["two"]


def test_a_message_that_did_not_open_alone_is_healed_by_a_batch_that_brings_it(pair: Pair) -> None:
    lone = from_alice(pair, message(1, "one"), an_id(1))
    pair.bobby.receive([msgspec.structs.replace(lone, sealed=lone.sealed[:-1] + b"?")])
    pair.bobby.receive([from_alice(pair, batch_of([(an_id(1), message(1, "one")), (an_id(2), message(2, "two"))]))])
    pair.island.clock.pass_by(timedelta(seconds=61))
    pair.bobby.read()
    assert pair.texts() == ["one", "two"] and {each.type for each in pair.bobby.shown} == {"message"}
    with pair.bobby.here.vault.reading() as vault:
        assert vault.run("SELECT count(*) FROM retries").fetchone() == (0,)


def test_so_many_wait_for_the_one_before_them_and_then_all_are_let_through(pair: Pair) -> None:
    count = 10_001
    for at in range(0, count, MOST_PARTS):
        numbers = range(at, min(at + MOST_PARTS, count))
        sequences = [count + 1 - number for number in numbers]  # backwards, and the first never comes
        batch = batch_of([(an_id(sequence), message(sequence)) for sequence in sequences])
        pair.bobby.receive([from_alice(pair, batch)])
    with pair.bobby.here.vault.reading() as vault:
        states = dict(vault.run("SELECT state, count(*) FROM inbox WHERE id != '' GROUP BY state").fetchall())
        first, flags = vault.run("SELECT sequence, flags FROM inbox WHERE state = 'new' ORDER BY row").fetchone()
    assert (states["new"], states.get("held", 0), first, flags) == (count, 0, 2, "gap")


def test_receipts_that_say_nothing_cost_nothing(pair: Pair) -> None:
    empty = msgspec.msgpack.encode([(1, [])] * 20_000)
    assert decode_receipts(empty) == []
    twice = msgspec.msgpack.encode([(1, [an_id(1)]), (2, []), (1, [an_id(2)])])
    assert decode_receipts(twice) == [(Receipts.DELIVERED, [an_id(1), an_id(2)])]


def copied(islander: Islander, to: Path) -> None:
    islander.here.close()
    shutil.copy(islander.here.profile.vault_path, to)
    islander.crash()


def rolled_back(islander: Islander, copy: Path) -> None:
    islander.here.close()
    shutil.copy(copy, islander.here.profile.vault_path)
    islander.crash()


@pytest.mark.parametrize("until_handled", [False, True])
def test_a_rolled_back_sender_hears_that_what_it_sent_before_has_arrived(
    pair: Pair, tmp_path: Path, until_handled: bool
) -> None:
    ids = [pair.alice.save("bobby", text) for text in ("one", "two", "three")]
    copied(pair.alice, tmp_path / "before")
    pair.alice.flush()
    [first] = pair.mail()
    assert take_in(pair.bobby.here, [first], until_handled=until_handled) == [not until_handled]
    rolled_back(pair.alice, tmp_path / "before")
    pair.alice.flush()
    second = pair.mail()[-1]
    assert second.message_id != first.message_id
    # Its ratchet is behind bobby's: he asks for it again, and gets it in a fresh session.
    last, may_go = second, take_in(pair.bobby.here, [second], until_handled=until_handled)
    for _ in range(3):
        for agent in (pair.bobby, pair.alice):
            agent.flush()
        pair.alice.receive(pair.mail("alice"))
        last = pair.mail()[-1]
        may_go = take_in(pair.bobby.here, [last], until_handled=until_handled)
    assert may_go == [not until_handled]
    batch = consumers.claim(pair.bobby.here, Filter(), 10)
    assert [each.text for _, each in batch] == ["one", "two", "three"]
    if until_handled:
        assert consumers.settled_among(pair.bobby.here, [("alice", last.message_id)]) == set()
        for message_id in ids:
            consumers.acknowledge(pair.bobby.here, message_id)
        assert consumers.settled_among(pair.bobby.here, [("alice", last.message_id)])
    pair.bobby.flush()
    pair.alice.receive(pair.mail("alice"))
    assert pair.fates(ids) == {"delivered"}


def test_what_has_expired_is_neither_sealed_again_nor_told_as_delivered(pair: Pair) -> None:
    ids = pair.save("one", "two")
    pair.alice.flush()
    with pair.alice.here.vault.transaction() as vault:
        fates.end(pair.alice.here, vault, ids[:1], "expired", "expired")
    pair.bobby.lose_vault()
    pair.settle(4)
    assert pair.texts()[-1] == "two" and "one" not in pair.texts()
    assert [pair.alice.fate(each) for each in ids] == ["expired", "delivered"]


def test_what_the_relay_accepts_late_does_not_bring_back_what_is_over(pair: Pair) -> None:
    ids = pair.save("one", "two")
    with pair.alice.here.vault.transaction() as vault:
        fates.end(pair.alice.here, vault, ids[:1], "expired", "expired")
        fates.settle_accepted(pair.alice.here, vault, [], dict.fromkeys(ids, 0))
    assert [pair.alice.fate(each) for each in ids] == ["expired", "accepted"]


def test_an_end_is_not_overruled_by_another_end(pair: Pair) -> None:
    ids = pair.save("one", "two")
    with pair.alice.here.vault.transaction() as vault:
        fates.end(pair.alice.here, vault, ids[:1], "expired", "expired")
        fates.end(pair.alice.here, vault, ids, "undecryptable", "undecryptable")
    assert [pair.alice.fate(each) for each in ids] == ["expired", "undecryptable"]


@pytest.mark.parametrize("hours", [48, -12])
def test_what_waits_for_days_does_not_share_an_envelope_with_what_is_new(tmp_path: Path, hours: int) -> None:
    island = Island()
    alice, bobby = Islander("alice", tmp_path, island), Islander("bobby", tmp_path, island)
    for text in ("one", "two"):
        alice.save("bobby", text)
    island.clock.pass_by(timedelta(hours=hours))  # or the clock was set back
    for text in ("three", "four"):
        alice.save("bobby", text)
    alice.flush()
    assert len(island.mailboxes["bobby"]) == 2
    bobby.receive(island.mailboxes["bobby"])
    bobby.read()
    assert [message.text for message in bobby.shown] == ["one", "two", "three", "four"]
    alice.here.close()
    bobby.here.close()


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_batch_of_a_wrong_clock_is_not_forgotten_while_it_is_under_way(pair: Pair, leaves_first: bool) -> None:
    pair.island.clock.pass_by(timedelta(days=-200))
    ids = pair.save("one", "two")
    if leaves_first:
        pair.alice.flush()
    pair.island.clock.pass_by(timedelta(days=200))
    with pair.alice.here.vault.transaction() as vault:
        vault.save_counter("forgot_at", 0)
        vault.run("UPDATE sent SET relay_due = relay_due + ?", (200 * 86_400_000,))  # by the relay's clock it is young
    pair.alice.look_at_the_clock()
    pair.settle()
    assert pair.texts() == ["one", "two"] and pair.fates(ids) == {"delivered"}


def test_messages_that_end_early_travel_alone_among_neighbours(pair: Pair) -> None:
    letters = [Letter("one"), Letter("two"), Letter("three", ttl=timedelta(hours=1)), Letter("four"), Letter("five")]
    outbox.save_all(pair.alice.here, [Draft(BOBBY, letter) for letter in letters], room=BODY_BYTES)
    assert pair.rows("outbox") == 3
    with pair.alice.here.vault.reading() as vault:
        assert [due > 0 for (due,) in vault.run("SELECT expires_at FROM outbox ORDER BY row")] == [False, True, False]
    assert control.debts(pair.alice.here).soon is False  # who saved them sends them
    pair.alice.crash()
    assert control.debts(pair.alice.here).soon is True
    pair.settle()
    assert pair.texts() == ["one", "two", "three", "four", "five"]


def test_messages_acknowledged_one_by_one_leave_nothing_behind(pair: Pair) -> None:
    ids = pair.save("one", "two")
    pair.alice.flush()
    take_in(pair.bobby.here, pair.mail(), until_handled=True)
    consumers.claim(pair.bobby.here, Filter(), 10)
    for message_id in ids:
        consumers.acknowledge(pair.bobby.here, message_id)
        pair.bobby.flush()
    pair.alice.receive(pair.mail("alice"))
    assert pair.fates(ids) == {"delivered"} and pair.rows("batches") == 0


def test_one_receipt_speaks_for_a_batch(pair: Pair) -> None:
    pair.save(*(f"number {number}" for number in range(50)))
    pair.alice.flush()
    pair.bobby.receive(pair.mail())
    with pair.bobby.here.vault.reading() as vault:
        assert vault.run("SELECT count(*) FROM receipts").fetchone() == (1,)


def test_a_batch_that_is_sealed_anew_is_believed_of_the_identity_that_it_is_sealed_for_now(pair: Pair) -> None:
    ids = pair.save("one", "two")
    with pair.alice.here.vault.transaction() as vault:
        outbox.enqueue_again(vault, BOBBY, MessageId(vault.run("SELECT id FROM batches").fetchone()[0]), 1, ids)
        vault.run("UPDATE sent SET pin = ?", (bytes(64),))
        vault.run("UPDATE batches SET pin = ?", (bytes(64),))
    pair.alice.flush()
    with pair.alice.here.vault.reading() as vault:
        pin = pin_of(vault.peer(pair.alice.here.address(BOBBY)).conversation.identity)
        pins = {found for (found,) in vault.run("SELECT pin FROM sent WHERE batch IS NOT NULL")}
        assert pins == {pin} and vault.run("SELECT pin FROM batches").fetchone() == (pin,)
    pair.settle()
    assert pair.fates(ids) == {"delivered"}


async def test_what_is_taken_in_at_once_is_not_too_long() -> None:
    pushes = Pushes()
    for number in range(8):
        pushes.put(Deliver(1, number, "alice", an_id(number), 0, 0, 0, 0, bytes(64 << 10)))
    assert [len(await pushes.take(200)) for _ in range(3)] == [3, 3, 2]


# A relay that changes its mind.


def too_large_over(size: int) -> Callable[[Post], AimessageError | None]:
    return lambda post: TooLarge("too large") if len(post.sealed) > size else None


@pytest.mark.parametrize("how", ["blocked", "refused"])
def test_a_second_try_that_comes_to_nothing_leaves_the_batch_as_it_was(pair: Pair, how: str) -> None:
    ids = pair.save("one", "two")
    pair.alice.flush()
    pair.bobby.lose_vault()
    pair.bobby.receive(pair.mail())
    pair.bobby.flush()
    pair.alice.receive(pair.mail("alice"))
    if how == "blocked":
        with pair.alice.here.vault.transaction() as vault:
            gate.block(pair.alice.here, vault, BOBBY)
            gate.accept(pair.alice.here, vault, BOBBY)
    else:
        pair.island.judge = lambda post: Denied("no") if post.attempt else None
        pair.alice.flush()
    assert pair.fates(ids) == {"accepted"} and pair.rows("outbox") == 0
    pair.island.judge = lambda post: None
    pair.island.clock.pass_by(timedelta(hours=2))
    pair.bobby.lose_vault()
    pair.settle(4)
    assert pair.texts()[-2:] == ["one", "two"] and pair.fates(ids) == {"delivered"}


def test_a_batch_of_which_nothing_is_left_stops_nobody(pair: Pair) -> None:
    pair.save("one", "two")
    with pair.alice.here.vault.transaction() as vault:
        vault.run("UPDATE batches SET bodies = x''")
        vault.run("UPDATE outbox SET sealed = x''")
    last = pair.save("three")
    pair.settle()
    pair.island.clock.pass_by(timedelta(seconds=31))  # what was in it has a place, and is missed
    pair.settle()
    assert pair.texts() == ["three"] and pair.fates(last) == {"delivered"} and pair.rows("outbox") == 0


def test_who_is_blocked_hears_nothing_of_what_came_before(pair: Pair) -> None:
    messages = [(an_id(1), message(1, "one")), (an_id(2), message(2, "two"))]
    pair.bobby.receive([from_alice(pair, batch_of(messages))])
    pair.bobby.read()
    pair.bobby.flush()
    with pair.bobby.here.vault.transaction() as vault:
        gate.block(pair.bobby.here, vault, Username("alice"))
    pair.island.mailboxes.clear()
    pair.bobby.receive([from_alice(pair, batch_of(messages)), from_alice(pair, messages[0][1], an_id(1))])
    pair.bobby.flush()
    assert not pair.mail("alice")


def test_receipts_that_went_along_with_what_was_taken_apart_are_told_all_the_same(pair: Pair) -> None:
    theirs = pair.bobby.save("alice", "a message of bobby's")
    pair.bobby.flush()
    pair.alice.receive(pair.mail("alice"))
    pair.island.mailboxes["alice"] = []
    ids = pair.save("one" + "x" * 900, "two" + "x" * 900)
    assert pair.rows("receipts") == 0  # it goes along
    pair.island.judge = too_large_over(2_000)
    pair.settle(4)
    assert pair.fates(ids) == {"delivered"} and pair.bobby.fate(theirs) in ("delivered", "read")


def test_a_relay_that_kept_what_it_refused_brings_nothing_twice_and_the_receipt_counts(pair: Pair) -> None:
    def judge(post: Post) -> AimessageError | None:
        if len(post.sealed) <= 2_000:
            return None
        pair.island.post("alice", post)
        return TooLarge("too large")

    pair.island.judge = judge
    texts = ["one" + "x" * 900, "two" + "x" * 900]
    ids = pair.save(*texts)
    pair.settle(4)
    assert pair.texts() == texts and pair.fates(ids) == {"delivered"}


def test_a_second_try_that_is_taken_apart_heals_all_that_did_not_open(pair: Pair) -> None:
    texts = [f"{number}" + "x" * 900 for number in range(3)]
    ids = pair.save(*texts)
    pair.alice.flush()
    pair.bobby.lose_vault()
    pair.island.judge = too_large_over(3_200)  # one with its prekeys fits
    pair.settle(5)
    pair.island.clock.pass_by(timedelta(seconds=90))
    pair.settle()
    assert sorted(pair.texts()[-3:]) == texts and pair.fates(ids) == {"delivered"}
    assert {each.type for each in pair.bobby.shown} == {"message"}


def test_what_is_taken_apart_stays_before_what_comes_behind_it(pair: Pair) -> None:
    texts = [f"{number} " + "x" * 900 for number in range(10)]
    pair.save(*texts)
    pair.save("small")
    pair.island.judge = lambda post: TooLarge("too large") if len(post.sealed) > 2_200 else MailboxFull("full")
    pair.alice.flush()
    with pair.alice.here.vault.reading() as vault:
        rows = vault.run("SELECT id FROM outbox ORDER BY row").fetchall()
        sequences = []
        for (message_id,) in rows:
            (kept,) = vault.run("SELECT body FROM sent WHERE id = ?", (message_id,)).fetchone()
            sequences.append(decode_body(vault.unseal("sent.body", message_id, kept)).sequence)
    assert len(rows) == 11 and sequences == sorted(sequences)
    assert not outbox.abandon(pair.alice.here, [MessageId(rows[0][0])], Denied("no"))  # it may have left
    pair.island.judge = too_large_over(2_200)
    pair.settle(3)
    assert pair.texts() == [*texts, "small"]
    assert {each.flags for each in pair.bobby.shown} == {()}


def test_a_message_that_is_accepted_is_told_so_whatever_becomes_of_those_behind_it(pair: Pair) -> None:
    mine, other = (outbox.save(pair.alice.here, BOBBY, Letter(text, ttl=timedelta(hours=1))) for text in ("me", "they"))
    pair.island.judge = lambda post: MailboxFull("full") if post.message_id == other else None

    async def brought() -> str:
        link = IslandLink(pair.island, "alice", None, lost_after=False)

        class Way:
            is_open = True

            async def link(self) -> OpenLink:
                return link  # type: ignore[return-value]  # what of it is used

        return await Sender(pair.alice.here, Way()).brought(BOBBY, mine, timedelta(seconds=5))

    assert asyncio.run(brought()) == "accepted"
    assert pair.alice.fate(other) == "waiting"


def test_what_is_held_for_a_consumer_is_found_without_a_walk_through_all_that_is_held(pair: Pair) -> None:
    pair.save("one", "two")
    pair.alice.flush()
    [envelope] = pair.mail()
    here, key, asked = pair.bobby.here, ("alice", envelope.message_id), list[str]()
    take_in(here, [envelope], until_handled=True)
    here.vault._database.set_trace_callback(asked.append)  # as SQLite runs them
    take_in(here, [envelope], until_handled=True)
    consumers.settled_among(here, [key])
    consumers.asked_among(here, [key])
    consumers.forget_held(here, [key])
    here.vault._database.set_trace_callback(None)
    about_held = [sql for sql in asked if "FROM inbox" in sql or "UPDATE inbox" in sql]
    assert len(about_held) >= 7
    for sql in about_held:
        plan = [row[-1] for row in here.vault._database.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]
        assert not any(step.startswith("SCAN") or "inbox_held" in step for step in plan), (sql, plan)
