"""No (key, nonce) seals twice: not over 100 000 messages, not from restored snapshots, not from 20 processes at once.

    python tests/endurance/core_nonces.py [--messages 100000] [--processes 20] [--seed 1]

What sealed a message is computed from the state before it and proved by opening the box with it. Two fifths of the
messages are sealed by processes that all load the same snapshot, the rest by pairs of agents that write, answer, lose
mail, are rolled back to earlier snapshots and go on from two copies of one state.
"""  # fmt: skip

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.crypto import aead, kdf
from aimessage.crypto.random import system_entropy
from aimessage.e2ee.header import Header
from aimessage.e2ee.ratchet import _box_key, _next_key
from aimessage.e2ee.session import Conversation, Envelope
from aimessage.errors import DecryptionFailed
from aimessage.types import MessageId, Username
from support.agents import Party

__all__ = ["Agents", "Ledger", "seal_from_a_snapshot"]

BODY = b"\x2a" * 128
_DIGEST_BYTES = 16
_PROCESS_SECONDS = 300


def seal(conversation: Conversation) -> tuple[Conversation, MessageId, bytes, bytes]:
    """Return the next conversation, the id, the sealed message, and a digest of the (key, nonce) that sealed it."""
    session = conversation._sending
    assert session is not None
    _, message_key = _next_key(session.ratchet.sending)
    message_id = MessageId(system_entropy(16))
    following, sealed = conversation.seal(message_id, 0, BODY, entropy=system_entropy)
    header, _, ciphertext = Header.split(sealed)
    key, nonce = _box_key(message_key, header.salt)
    bound = session.bound(ours=True, message_id=message_id, attempt=0) + header.encode()
    assert aead.open_once(key, nonce, ciphertext, bound) == BODY, "this is not what sealed it"
    return following, message_id, sealed, kdf.sha256(key.reveal, nonce)[:_DIGEST_BYTES]


@dataclass
class Ledger:
    """Every (key, nonce) so far, and how often one came again."""

    seen: set[bytes] = field(default_factory=set)
    sealed: int = 0

    def note(self, digest: bytes) -> None:
        """One more message was sealed."""
        self.sealed += 1
        self.seen.add(digest)

    @property
    def repeated(self) -> int:
        """How many messages were sealed under a (key, nonce) that another had used."""
        return self.sealed - len(self.seen)


class Agents:
    """Pairs of agents whose vaults are rolled back and copied while they write to each other."""

    def __init__(self, pairs: int, seed: int) -> None:
        self._random = Random(seed)
        self.ledger = Ledger()
        self.restored = self.started = self.copies = self.unopened = 0
        self._pairs = [(Party("alice", seed + 2 * at), Party("bobby", seed + 2 * at + 1)) for at in range(pairs)]
        self._snapshots: dict[int, list[bytes]] = {}
        for pair in self._pairs:
            for party, other in (pair, pair[::-1]):
                party.entropy = system_entropy
                party.meet(other)

    def step(self) -> None:
        """Let one agent do one thing."""
        pair = self._random.choice(self._pairs)
        party, other = pair if self._random.random() < 0.5 else pair[::-1]
        snapshots = self._snapshots.setdefault(id(party), [party.conversation.dump()])
        chance = self._random.random()
        if chance < 0.02:
            snapshots.append(party.conversation.dump())
            del snapshots[:-20]
        elif chance < 0.04:
            party.conversation = Conversation.load(self._random.choice(snapshots))
            self.restored += 1
        elif chance < 0.06:
            self._go_on_from_two_copies(party, other)
        else:
            self._write(party, other)

    def _write(self, party: Party, other: Party) -> None:
        if not party.conversation.can_send:
            party.start(other, with_pair=False)
            self.started += 1
        for _ in range(self._random.choice((1, 1, 1, 2, 8))):
            party.conversation, message_id, sealed, digest = seal(party.conversation)
            self.ledger.note(digest)
            if self._random.random() < 0.9:
                self._deliver(other, party, Envelope(Username(party.name), message_id, 0, sealed))

    def _deliver(self, receiver: Party, sender: Party, envelope: Envelope) -> None:
        try:
            receiver.open(envelope)
        except DecryptionFailed:  # one of the two was rolled back too far: it asks for a fresh session
            self.unopened += 1
            receiver.conversation = receiver.conversation.retire()
            receiver.start(sender, with_pair=False)
            self.started += 1

    def _go_on_from_two_copies(self, party: Party, other: Party) -> None:
        state, self.copies = party.conversation, self.copies + 1
        self._write(party, other)
        party.conversation = state
        self._write(party, other)


def seal_from_a_snapshot(snapshot: Path, output: Path, count: int, everyone: Barrier) -> None:
    """Seal *count* messages from the state in a file, going back to it now and then; write what sealed them."""
    octets, random, digests = snapshot.read_bytes(), Random(os.getpid()), []
    conversation = Conversation.load(octets)
    everyone.wait(_PROCESS_SECONDS)
    for _ in range(count):
        if random.random() < 0.01:
            conversation = Conversation.load(octets)
        conversation, _, _, digest = seal(conversation)
        digests.append(digest)
    output.write_bytes(b"".join(digests))


def _seal_in_processes(directory: Path, ledger: Ledger, *, processes: int, count: int) -> None:
    alice, bobby = Party("alice", 1), Party("bobby", 2)
    for party, other in ((alice, bobby), (bobby, alice)):
        party.meet(other)
    alice.start(bobby)
    bobby.open(alice.seal(BODY))
    alice.open(bobby.seal(BODY))
    snapshot = directory / "snapshot"
    snapshot.write_bytes(alice.conversation.dump())
    context = multiprocessing.get_context("spawn")
    everyone = context.Barrier(processes)
    outputs = [directory / str(at) for at in range(processes)]
    running = [
        context.Process(target=seal_from_a_snapshot, args=(snapshot, output, count, everyone)) for output in outputs
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(_PROCESS_SECONDS)
        assert process.exitcode == 0, "a process failed"
    for output in outputs:
        digests = output.read_bytes()
        for at in range(0, len(digests), _DIGEST_BYTES):
            ledger.note(digests[at : at + _DIGEST_BYTES])


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started = time.monotonic()
    agents = Agents(pairs=6, seed=given.seed)
    ledger = agents.ledger
    each = -(-given.messages * 2 // 5 // given.processes)
    while ledger.sealed < given.messages - each * given.processes:
        agents.step()
    with tempfile.TemporaryDirectory() as directory:
        _seal_in_processes(Path(directory), ledger, processes=given.processes, count=each)
    sys.stdout.write(
        f"  {agents.restored} snapshots restored, {agents.copies} times on from two copies, "
        f"{agents.started} sessions started, {agents.unopened} messages unopened after a rollback\n"
        f"  {given.processes} processes sealed {each} each from one snapshot\n"
        f"core_nonces: {ledger.sealed} messages, {ledger.repeated} repeated (key, nonce) "
        f"in {time.monotonic() - started:.0f} s\n"
    )
    return 1 if ledger.repeated else 0


if __name__ == "__main__":
    sys.exit(main())
