"""Reconnects for a long time: the relay grows neither in memory nor in descriptors, and loses nothing.

    python tests/endurance/soak.py [--minutes 15] [--per-minute 1000] [--stores memory,rocksdb] [--seed 1]

Each visit logs in, subscribes, takes and acknowledges what waits, posts one message to one of eight correspondents and
leaves: two of three with a close frame, one without a word. One relay runs for each store. The slopes leave the first
third out as warm-up. The bar on memory is judged on the relay that keeps mail in memory: RocksDB fills its table in
memory (64 MiB) before it first writes it down, as its log does on the disk, so the growth of the log is printed too.
"""  # fmt: skip

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.types import VaultId
from aimessage.wire.frames import Accepted, Ack, Acknowledge, CaughtUp, Deliver, Post, Proved, Subscribed
from endurance.relays import Lives, say, url_of
from endurance.vitals import Vitals, slope, vitals_of
from support.commands import Relay
from support.relay import Peer

__all__ = ["Soak", "soak"]

_MIB_PER_HOUR = 1.0
_SAMPLE_SECONDS = 5.0
_AT_ONCE = 64  # visits under way, of one relay


@dataclass
class _Visitor:
    name: str
    secret: bytes
    vault_id: VaultId
    generation: int = 0
    known: bool = False


@dataclass
class Soak:
    """One relay's long day: what was sent and seen, and its vitals with the hour at which each was read."""

    store: str
    visits: int = 0
    sent: set[bytes] = field(default_factory=set)
    seen: set[bytes] = field(default_factory=set)
    samples: list[tuple[float, Vitals, int]] = field(default_factory=list)  # hour, vitals, bytes of the log
    quiet: list[Vitals] = field(default_factory=list)  # with nobody connected: before and after

    @property
    def lost(self) -> int:
        """How many messages were accepted and never seen."""
        return len(self.sent - self.seen)

    @property
    def _settled(self) -> list[tuple[float, Vitals, int]]:
        return self.samples[len(self.samples) // 3 :]

    @property
    def rss_slope(self) -> float:
        """Growth of resident memory behind the warm-up, MiB an hour."""
        return slope([(hour, vitals.rss_mib) for hour, vitals, _ in self._settled])

    @property
    def socket_slope(self) -> float:
        """Growth of the number of sockets behind the warm-up, sockets an hour."""
        return slope([(hour, vitals.sockets) for hour, vitals, _ in self._settled])

    @property
    def log_slope(self) -> float:
        """Growth of the write-ahead log behind the warm-up, MiB an hour."""
        return slope([(hour, size / (1 << 20)) for hour, _, size in self._settled])

    @property
    def sockets_left(self) -> int:
        """How many more sockets there are with nobody connected than before."""
        return self.quiet[-1].sockets - self.quiet[0].sockets

    @property
    def good(self) -> bool:
        """Whether the bars are met."""
        steady = self.store != "memory" or self.rss_slope < _MIB_PER_HOUR
        return steady and not self.lost and self.sockets_left == 0

    def __str__(self) -> str:
        return (
            f"{self.store}: {self.visits} visits, lost {self.lost} of {len(self.sent)}; memory {self.rss_slope:+.2f} "
            f"MiB/h (log {self.log_slope:+.2f}), sockets {self.socket_slope:+.1f}/h, {self.sockets_left} left over; "
            f"{self.quiet[0]} at the start, {self.quiet[-1]} at the end"
        )


async def _visit(url: str, visitor: _Visitor, to: str, found: Soak, random: Random) -> None:
    visitor.generation += 1
    peer = Peer(url, visitor.name, visitor.secret)
    peer.vault_id = visitor.vault_id  # the store keeps the generation of every vault that ever subscribed
    async with peer:
        answer = await (peer.login() if visitor.known else peer.register())
        assert isinstance(answer, Proved), answer
        visitor.known = True
        subscribed = await peer.subscribe(visitor.generation)
        assert isinstance(subscribed, Subscribed), subscribed
        await peer.expect(CaughtUp)
        mail = [frame for frame in peer.frames if isinstance(frame, Deliver)]
        if mail:
            found.seen.update(frame.message_id for frame in mail)
            peer.send(Acknowledge(subscribed.subscription, [Ack(frame.position, frame.message_id) for frame in mail]))
        if to:
            message_id = random.randbytes(16)
            peer.send(Post(peer.next_id(), to, message_id, 0, 0, 0, random.randbytes(300)))
            await peer.expect(Accepted)
            found.sent.add(message_id)
        if random.random() < 1 / 3:
            peer.transport.disconnect(graceful=False)
        found.visits += 1


async def _sample(relay: Relay, data: Path, found: Soak) -> None:
    started = time.monotonic()
    while True:
        await asyncio.sleep(_SAMPLE_SECONDS)
        found.samples.append(((time.monotonic() - started) / 3600, vitals_of(relay.process.pid), _log_bytes(data)))


def _log_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in data.rglob("*.log"))


async def _quiet(relay: Relay, at_most: int | None) -> Vitals:
    """Return the vitals with nobody connected; *at_most* sockets are waited for, for a while."""
    async with asyncio.timeout(30):
        while at_most is not None and vitals_of(relay.process.pid).sockets > at_most:  # noqa: ASYNC110  # the kernel's
            await asyncio.sleep(0.1)
    return vitals_of(relay.process.pid)


async def soak(directory: Path, store: str, *, minutes: float, per_minute: float, seed: int) -> Soak:
    """Visit a relay on *store* again and again, and return what was found."""
    random, found = Random(seed), Soak(store)
    visitors = [
        _Visitor(f"visitor-{number}", random.randbytes(32), VaultId(random.randbytes(16))) for number in range(200)
    ]
    lives = Lives(directory / "data", directory, "--store", store, "--lookups", "0")
    with lives.relay() as relay:
        url = url_of(relay)
        found.quiet.append(await _quiet(relay, None))
        for visitor in visitors:
            await _visit(url, visitor, "", found, random)
        async with asyncio.TaskGroup() as tasks:
            sampling = tasks.create_task(_sample(relay, lives.data, found))
            await _visit_on_time(url, visitors, found, random, minutes * 60, 60 / per_minute)
            sampling.cancel()
        for visitor in visitors:
            await _visit(url, visitor, "", found, random)
        try:
            found.quiet.append(await _quiet(relay, found.quiet[0].sockets))
        except TimeoutError:
            found.quiet.append(vitals_of(relay.process.pid))
    return found


def _correspondents(visitors: list["_Visitor"], number: int) -> list["_Visitor"]:
    """Whom a visitor writes to: agents have few correspondents, and a relay remembers who has written to whom."""
    return [visitors[(number + distance) % len(visitors)] for distance in range(1, 9)]


async def _visit_on_time(
    url: str, visitors: list[_Visitor], found: Soak, random: Random, seconds: float, every: float
) -> None:
    room = asyncio.Semaphore(_AT_ONCE)
    started = time.monotonic()

    async def one(visitor: _Visitor, to: str) -> None:
        try:
            await _visit(url, visitor, to, found, random)
        finally:
            room.release()

    async with asyncio.TaskGroup() as tasks:
        for number in range(int(seconds / every)):
            await asyncio.sleep(max(0.0, started + number * every - time.monotonic()))
            await room.acquire()
            visitor, to = visitors[number % len(visitors)], random.choice(_correspondents(visitors, number)).name
            tasks.create_task(one(visitor, to))


async def _soak_all(directory: Path, stores: list[str], **sizes: float) -> list[Soak]:
    seed = int(sizes.pop("seed"))
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(soak(directory / store, store, seed=seed, **sizes)) for store in stores]
    return [task.result() for task in running]


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--per-minute", type=float, default=1_000)
    parser.add_argument("--stores", default="memory,rocksdb")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        soaks = uvloop.run(
            _soak_all(
                Path(directory), given.stores.split(","), minutes=given.minutes, per_minute=given.per_minute,
                seed=given.seed,
            )
        )  # fmt: skip
    for found in soaks:
        for hour, vitals, size in found.samples[:: max(1, len(found.samples) // 15)]:
            say(f"  {found.store:8} minute {hour * 60:5.1f}: {vitals}, log {size / (1 << 20):.1f} MiB")
    for found in soaks:
        say(f"soak: {found}")
    return 0 if all(found.good for found in soaks) else 1


if __name__ == "__main__":
    sys.exit(main())
