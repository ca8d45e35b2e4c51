"""Messages that share an envelope: each has its own id, fate and one effect, whatever becomes of the envelope."""

import asyncio
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from aimessage.client import Message, Sent, connect, consumers, control, fates, gate, outbox
from aimessage.client.consumers import Filter
from aimessage.client.history import history
from aimessage.client.letter import Letter
from aimessage.client.outbox import Draft
from aimessage.client.pins import pin_of
from aimessage.errors import DecryptionFailed
from aimessage.types import MessageId, Username, message_id_text
from aimessage.wire.frames import Deliver
from support.island import Island, Islander
from support.machines import QUIET, Machine
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
        found = outbox.save_all(self.alice.here, [Draft(BOBBY, Letter(text)) for text in texts], sealing=True)
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
    assert len(pair.mail("alice")) == 0


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
    assert pair.fates(ids) == {"accepted"} and pair.rows("outbox") == 0


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
    from aimessage.client.inbox import take_in

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
