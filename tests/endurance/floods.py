"""Hostile input by the thousand against a real relay, while two bystanders write to each other.

    python tests/endurance/floods.py [--scale 1.0] [--only malformed_frames,...]

For each attack: how its connections ended, the relay's memory and descriptors before, at the worst moment and behind,
and how long a bystander's message took from being sent to being delivered. The relay's rates are off, so that each
attack gets as far as it can; what bounds it are the other limits. The last one takes the relay's descriptors away.
"""  # fmt: skip

import argparse
import asyncio
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.crypto.random import system_entropy
from aimessage.wire.frames import Accepted, Ack, Acknowledge, CaughtUp, Deliver, Post, Proved, Refused, Subscribed
from endurance.hostile import Ends, attack
from endurance.relays import say, url_of
from endurance.vitals import Vitals, vitals_of
from support.commands import Relay, running_relay
from support.relay import HOST, Peer

__all__ = ["SIZES", "Bystanders", "Flood", "bystanders", "exhaust_descriptors", "flood", "hostile_relay"]

SIZES = {
    "malformed_frames": 10_000,
    "random_handshakes": 10_000,
    "slow_handshakes": 90,
    "header_floods": 500,
    "endless_fragments": 200,
    "huge_lengths": 1_000,
    "stalled_readers": 20,
    "half_open": 90,
}
"""Connections of each attack; the slow ones stay below the 100 sockets that may be not logged in."""
_MIB = 1 << 20
_GROWTH_BYTES = 10 * _MIB
_DESCRIPTORS = 256
_ANSWERS = 5  # to the bystander while there is no descriptor left, and as many once they are back
_FIRST_WAVE = 20
_FLAGS = ("--connections-per-address", "0", "--connections", "0", "--stall-seconds", "3", "--lookups", "0")


@dataclass
class Bystanders:
    """Two agents; every message of the one is timed until the other has it."""

    sender: Peer
    recipient: Peer
    subscription: int
    seconds: list[float] = field(default_factory=list)
    refused: int = 0

    async def talk(self) -> None:
        """Send one message at a time until cancelled, again if it is refused. Raises AssertionError: a link ended."""
        while True:
            message_id = system_entropy(16)
            began = time.monotonic()
            while isinstance(answer := await self._posted(message_id), Refused):
                self.refused += 1
                await asyncio.sleep(answer.retry_after)
                began = time.monotonic()
            while await self._next_id() != message_id:  # what was on its way when the last talk was cancelled
                pass
            self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(0.01)

    async def _posted(self, message_id: bytes) -> Accepted | Refused:
        request = Post(self.sender.next_id(), self.recipient.name, message_id, 0, 0, 0, bytes(200))
        self.sender.send(request)
        while True:
            answer = await self.sender.expect(Accepted, Refused)
            assert isinstance(answer, Accepted | Refused)
            if answer.id == request.id:  # not that of one which a cancelled talk had left
                return answer

    async def _next_id(self) -> bytes:
        mail = await self.recipient.expect(Deliver)
        self.recipient.send(Acknowledge(self.subscription, [Ack(mail.position, mail.message_id)]))
        return mail.message_id

    def delays(self) -> str:
        """Return the median and the worst delay since the last call, "none" if nothing was delivered."""
        if not self.seconds:
            return "none"
        text = f"p50 {median(self.seconds) * 1e3:.1f} ms, max {max(self.seconds) * 1e3:.0f} ms of {len(self.seconds)}"
        text += f" (refused {self.refused})" * bool(self.refused)
        self.seconds.clear()
        self.refused = 0
        return text


@asynccontextmanager
async def bystanders(relay: Relay) -> AsyncIterator[Bystanders]:
    """Two agents that are logged in before anything happens."""
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(Peer(url_of(relay), "alice"))
        recipient = await stack.enter_async_context(Peer(url_of(relay), "bobby"))
        assert isinstance(await sender.register(), Proved)
        assert isinstance(await recipient.register(), Proved)
        subscribed = await recipient.subscribe()
        assert isinstance(subscribed, Subscribed)
        await recipient.expect(CaughtUp)
        yield Bystanders(sender, recipient, subscribed.subscription)


@dataclass
class Flood:
    """What one attack did to a relay."""

    name: str
    ends: Ends
    before: Vitals
    worst_bytes: int
    after: Vitals
    delays: str

    @property
    def survived(self) -> bool:
        """Whether all sockets came back, the memory stays within the bar, and the bystanders heard each other."""
        returned = self.after.sockets == self.before.sockets
        return returned and self.growth_bytes < _GROWTH_BYTES and self.delays != "none"

    @property
    def growth_bytes(self) -> int:
        """How much more memory is resident behind it."""
        return self.after.rss_bytes - self.before.rss_bytes

    def __str__(self) -> str:
        ends = ", ".join(f"{end} {count}" for end, count in self.ends.most_common(6))
        return (
            f"{self.name:19} {self.before.rss_mib:6.1f} → {self.worst_bytes / _MIB:6.1f} → {self.after.rss_mib:6.1f} "
            f"MiB; descriptors {self.before.descriptors} → {self.after.descriptors}; bystander {self.delays}; {ends}"
        )


async def _until_quiet(pid: int, sockets: int) -> Vitals:
    """Return the vitals once there are no more than *sockets*, or what they are when that does not come."""
    try:
        async with asyncio.timeout(30):
            while vitals_of(pid).sockets > sockets:  # noqa: ASYNC110  # the kernel's
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    return vitals_of(pid)


async def _worst(pid: int, found: list[int]) -> None:
    while True:
        found[0] = max(found[0], vitals_of(pid).rss_bytes)
        await asyncio.sleep(0.05)


@asynccontextmanager
async def _watched(relay: Relay, watchers: Bystanders) -> AsyncIterator[list[int]]:
    """Keep the bystanders talking and the worst memory known while the context is open."""
    worst = [0]
    async with asyncio.TaskGroup() as tasks:
        watching = [tasks.create_task(watchers.talk()), tasks.create_task(_worst(relay.process.pid, worst))]
        yield worst
        for task in watching:
            task.cancel()


async def flood(relay: Relay, watchers: Bystanders, name: str, size: int, pool: ProcessPoolExecutor) -> Flood:
    """Run one attack in another process and return what it did."""
    before = vitals_of(relay.process.pid)
    async with _watched(relay, watchers) as worst:
        ends = await asyncio.get_running_loop().run_in_executor(pool, attack, name, relay.port, size)
        after = await _until_quiet(relay.process.pid, before.sockets)
    return Flood(name, ends, before, worst[0], after, watchers.delays())


async def _until_answered(watchers: Bystanders, count: int) -> None:
    async with asyncio.timeout(30):
        while len(watchers.seconds) + watchers.refused < count:  # noqa: ASYNC110  # the other task's
            await asyncio.sleep(0.05)


async def exhaust_descriptors(relay: Relay, watchers: Bystanders, size: int) -> Flood:
    """Leave a running relay 256 descriptors, dial it more often than that, and hang up."""
    pid = relay.process.pid
    before, limits = vitals_of(pid), resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_DESCRIPTORS, limits[1]))
    ends: Ends = Counter()
    try:
        async with _watched(relay, watchers) as worst:
            writers = []
            for _ in range(size):
                writers.append((await asyncio.open_connection(HOST, relay.port))[1])
            async with asyncio.timeout(10):
                while vitals_of(pid).descriptors < _DESCRIPTORS - 1:  # noqa: ASYNC110  # the kernel's
                    await asyncio.sleep(0.05)
            await _until_answered(watchers, len(watchers.seconds) + watchers.refused + _ANSWERS)
            ends[f"{vitals_of(pid).descriptors} of {_DESCRIPTORS} descriptors taken"] += 1
            for writer in writers:
                writer.transport.abort()
            after = await _until_quiet(pid, before.sockets)
            await _until_answered(watchers, len(watchers.seconds) + watchers.refused + _ANSWERS)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    return Flood("descriptors", ends, before, worst[0], after, watchers.delays())


@asynccontextmanager
async def hostile_relay(directory: Path, *flags: str) -> AsyncIterator[tuple[Relay, Bystanders]]:
    """Run a relay whose rates and bounds on connections are off, and two bystanders on it."""
    with running_relay(directory, *_FLAGS, *flags) as relay:
        async with bystanders(relay) as watchers:
            yield relay, watchers


async def _flood_all(directory: Path, names: list[str], scale: float) -> list[Flood]:
    floods = []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        async with hostile_relay(directory / "floods", "--heartbeat-seconds", "8") as (relay, watchers):
            for name in names:  # a first wave of each, told apart: what the allocator keeps of it the next ones use
                size = min(SIZES[name], max(_FIRST_WAVE, SIZES[name] // 50))
                say(f"  first wave: {await flood(relay, watchers, name, size, pool)}")
            for name in names:
                floods.append(await flood(relay, watchers, name, max(1, int(SIZES[name] * scale)), pool))
                say(f"  {floods[-1]}")
            assert relay.process.poll() is None, "the relay ended by itself"
    async with hostile_relay(directory / "descriptors", "--unauthenticated", "0") as (relay, watchers):
        floods.append(await exhaust_descriptors(relay, watchers, 400))
        say(f"  {floods[-1]}")
    return floods


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default=",".join(SIZES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        floods = uvloop.run(_flood_all(Path(directory), given.only.split(","), given.scale))
    bad = [found.name for found in floods if not found.survived]
    most = max(found.growth_bytes for found in floods) / _MIB
    say(f"floods: {len(floods)} attacks, {len(bad)} left something behind {bad}; memory at most {most:+.1f} MiB")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
