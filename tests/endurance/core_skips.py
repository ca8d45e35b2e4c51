"""What a peer can make us skip: jumps over the limit are refused early, and few keys are kept under any schedule.

    python tests/endurance/core_skips.py [--steps 1000] [--jumps 300] [--seed 1]

Times are printed as figures and judged by the reader; what is kept, and the memory that it takes, is judged here.
"""  # fmt: skip

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from statistics import median

from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.e2ee.header import Header
from aimessage.e2ee.ratchet import MAX_CHAINS, MAX_SKIP, MAX_STORED
from aimessage.e2ee.session import MAX_SESSIONS, Envelope
from aimessage.errors import DecryptionFailed
from support.agents import Party, acquainted

__all__ = ["Hoarder", "time_jumps"]

_RSS_MIB = 64


def kept(party: Party) -> list[int]:
    """Return how many keys each session keeps."""
    return [sum(len(chain.keys) for chain in session.ratchet.skipped) for session in party.conversation.sessions]


def full(seed: int) -> tuple[Party, Party]:
    """Return a pair of whom the second keeps as many keys as it ever may."""
    alice, bobby = acquainted(seed)
    while kept(bobby)[0] < MAX_STORED:
        for _ in range(MAX_SKIP):
            alice.seal(b"lost")
        bobby.open(alice.seal(b"kept"))
    return alice, bobby


FORGERIES: dict[str, Callable[[Header, bytes], Header]] = {
    "over the limit": lambda header, _: replace(header, number=header.number + MAX_SKIP + 1),
    "as far as it goes": lambda header, _: replace(header, number=0xFFFF_FFFF),
    "over the limit in the chain before": lambda header, key: replace(header, dh=key, before=0xFFFF_FFFF),
    "over the limit behind a forged turn": lambda header, key: replace(
        header, dh=key, before=header.number + MAX_SKIP, number=MAX_SKIP + 1
    ),
    "at the limit, forged": lambda header, _: replace(header, number=header.number + MAX_SKIP),
    "at both limits, forged": lambda header, key: replace(
        header, dh=key, before=header.number + MAX_SKIP, number=MAX_SKIP
    ),
}


def time_jumps(seed: int, count: int) -> dict[str, list[float]]:
    """Return for each forgery how long it took to refuse it, in ms, by one who keeps all the keys that it may."""
    alice, bobby = full(seed)
    envelope, times = alice.seal(b"honest"), {}
    header, _, ciphertext = Header.split(envelope.sealed)
    before = bobby.conversation.dump()
    for name, forge in FORGERIES.items():
        forged = replace(envelope, sealed=forge(header, bobby.bundle.signed_prekey).encode() + ciphertext)
        times[name] = [_refusal_ms(bobby, forged) for _ in range(count)]
        assert bobby.conversation.dump() == before, "a refusal left a trace"
    assert bobby.open(envelope) == b"honest"
    return times


def _refusal_ms(party: Party, envelope: Envelope) -> float:
    started = time.perf_counter()
    try:
        party.try_open(envelope)
    except DecryptionFailed:
        return (time.perf_counter() - started) * 1e3
    raise AssertionError("a forgery was opened")


@dataclass
class Hoarder:
    """A peer that loses, delays and turns as it likes, with one aim: that we keep more than we should."""

    seed: int
    parties: tuple[Party, Party] = field(init=False)
    late: list[tuple[Party, Envelope]] = field(default_factory=list)
    most: int = 0
    chains: int = 0
    opened: int = 0
    unopened: int = 0

    def __post_init__(self) -> None:
        self.parties = acquainted(self.seed)
        self._random = Random(self.seed)

    def step(self) -> None:
        """Lose some, deliver one, perhaps turn, perhaps deliver a few that are late."""
        us, peer = self._random.choice((self.parties, self.parties[::-1]))
        (count,) = self._random.choices((0, 1, 30, 300, MAX_SKIP, MAX_SKIP + 1), (6, 6, 6, 6, 6, 1))
        lost = [peer.seal(b"late") for _ in range(count)]
        self.late += [(us, each) for each in self._random.sample(lost, min(len(lost), 40))]
        if not self._delivered(us, peer.seal(b"in time")) or self._random.random() < 0.02:
            self._start_again(peer, us)
        if self._random.random() < 0.5:
            self._delivered(peer, us.seal(b"turn"))
        if self._random.random() < 0.02:
            us.later(timedelta(days=self._random.choice((1, 31, -20))))
        self._random.shuffle(self.late)
        for party, envelope in self.late[:20]:
            self._delivered(party, envelope)
        del self.late[:20], self.late[2_000:]

    def _start_again(self, peer: Party, us: Party) -> None:
        peer.now = us.now
        us.publish(epoch=us.bundle.epoch + 1)
        peer.start(us, with_pair=False, epoch=peer.bundle.epoch)
        self._delivered(us, peer.seal(b"a new session"))

    def _delivered(self, party: Party, envelope: Envelope) -> bool:
        try:
            party.open(envelope)
        except DecryptionFailed:
            self.unopened += 1
            return False
        self.opened += 1
        self.most = max(self.most, *kept(party))
        self.chains = max(self.chains, *(len(each.ratchet.skipped) for each in party.conversation.sessions))
        assert self.most <= MAX_STORED, "too many keys are kept"
        assert self.chains <= MAX_CHAINS, "keys of too many chains are kept"
        assert len(party.conversation.sessions) <= MAX_SESSIONS, "too many sessions are kept"
        return True

    @property
    def dumped_bytes(self) -> int:
        """How large the larger of the two conversations is, as the vault keeps it."""
        return max(len(each.conversation.dump()) for each in self.parties)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--jumps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for name, times in time_jumps(given.seed, given.jumps).items():
        sys.stdout.write(f"  refused, {name}: median {median(times):.2f} ms, longest {max(times):.2f} ms\n")
    hoarder, before, largest = Hoarder(given.seed), _peak_mib(), 0
    for _ in range(given.steps):
        hoarder.step()
        largest = max(largest, hoarder.dumped_bytes)
    grown = _peak_mib() - before
    sys.stdout.write(
        f"  {hoarder.opened} opened, {hoarder.unopened} refused; largest conversation {largest >> 10} KiB\n"
        f"core_skips: at most {hoarder.most} keys kept in {hoarder.chains} chains; memory grew by {grown:.1f} MiB\n"
    )
    return 1 if grown > _RSS_MIB else 0


if __name__ == "__main__":
    sys.exit(main())
