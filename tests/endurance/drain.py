"""SIGTERM with a thousand connected clients that write to each other: the relay drains, nothing is lost, all come back.

    python tests/endurance/drain.py [--clients 1000] [--seed 1]

Each client does what it is told: it comes back after the `retry_after` of its Bye, and a little later once more if the
new relay is not there yet. Printed are how long the old relay took to end, and over how long the clients came back.
"""  # fmt: skip

import argparse
import asyncio
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import uvloop
from picows import WSError

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.wire.frames import (
    Accepted,
    Ack,
    Acknowledge,
    Bye,
    CaughtUp,
    Deliver,
    Post,
    Proved,
    RelayFrame,
    Subscribed,
)
from endurance.relays import Lives, say, url_of
from support.relay import Peer

__all__ = ["Drain", "drain"]

_BAR_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0
_OPEN = ("--connections", "0", "--connections-per-address", "0")


@dataclass
class Drain:
    """What the clients found."""

    clients: int
    drained_seconds: float = 0.0
    exit_code: int | None = None
    byes: int = 0
    accepted: set[bytes] = field(default_factory=set)
    seen: set[bytes] = field(default_factory=set)
    returned: list[float] = field(default_factory=list)  # the moments at which clients were logged in again
    told: list[float] = field(default_factory=list)  # the seconds after which each was told to come back

    @property
    def lost(self) -> int:
        """How many messages were accepted and never seen."""
        return len(self.accepted - self.seen)

    @property
    def spread_seconds(self) -> float:
        """The time between the first and the last who was told to come back."""
        return max(self.told) - min(self.told) if self.told else 0.0

    @property
    def busiest_tenth(self) -> int:
        """The most clients that were told to come back within the same tenth of a second."""
        return max(Counter(int(wait * 10) for wait in self.told).values(), default=0)

    @property
    def good(self) -> bool:
        """Whether the bar is met: drained in time, nothing lost, everybody told and back again."""
        everybody = self.byes == len(self.returned) == self.clients
        return everybody and not self.lost and self.drained_seconds <= _BAR_SECONDS and self.exit_code == 0


@dataclass
class _Client:
    name: str
    secret: bytes
    to: str
    found: Drain
    random: Random
    generation: int = 0
    back_at: float = 0.0  # monotonic
    _waiting: bytes = b""  # the message that has no answer yet

    async def first(self, url: str, ready: asyncio.Semaphore, room: asyncio.Semaphore) -> None:
        """Register and write until the relay says goodbye."""
        async with AsyncExitStack() as stack:
            async with room:
                peer = await stack.enter_async_context(Peer(url, self.name, self.secret))
                assert isinstance(await peer.register(), Proved)
                number = await self._subscribe(peer)
            ready.release()
            while not (peer.over or self._take(peer, number)):
                self._post(peer)
                await peer._receive()
            self._take(peer, number)

    async def again(self, url: str) -> None:
        """Come back when told to, and take all that waits."""
        await asyncio.sleep(max(0.0, self.back_at - time.monotonic()))
        while True:
            try:
                async with Peer(url, self.name, self.secret) as peer:
                    assert isinstance(await peer.login(), Proved)
                    self.found.returned.append(time.monotonic())
                    number = await self._subscribe(peer)
                    await peer.expect(CaughtUp)
                    self._take(peer, number)
                    return
            except (OSError, WSError):  # it is not there yet
                await asyncio.sleep(self.random.uniform(0.2, 0.6))

    async def _subscribe(self, peer: Peer) -> int:
        self.generation += 1
        answer = await peer.subscribe(self.generation)
        assert isinstance(answer, Subscribed), answer
        return answer.subscription

    def _post(self, peer: Peer) -> None:
        if not peer.over and not self._waiting:
            self._waiting = self.random.randbytes(16)
            peer.send(Post(peer.next_id(), self.to, self._waiting, 0, 0, 0, bytes(200)))

    def _take(self, peer: Peer, subscription: int) -> bool:
        """Take what has come; return whether it was a goodbye."""
        frames: list[RelayFrame] = peer.frames
        peer.frames = []
        leaving = False
        for frame in frames:
            if isinstance(frame, Accepted):
                self.found.accepted.add(self._waiting)
                self._waiting = b""
            elif isinstance(frame, Bye):
                self.found.byes += 1
                self.found.told.append(frame.retry_after)
                self.back_at, leaving = time.monotonic() + frame.retry_after, True
        mail = [frame for frame in frames if isinstance(frame, Deliver)]
        self.found.seen.update(frame.message_id for frame in mail)
        if mail and not (leaving or peer.over):
            peer.send(Acknowledge(subscription, [Ack(frame.position, frame.message_id) for frame in mail]))
        return leaving


async def drain(directory: Path, *, clients: int, seed: int) -> Drain:
    """Stop a busy relay in order, start it again on its data and its port, and return what the clients found."""
    random, found = Random(seed), Drain(clients)
    names = [f"client-{number}" for number in range(clients)]
    everybody = [
        _Client(name, random.randbytes(32), names[(number + 1) % clients], found, random)
        for number, name in enumerate(names)
    ]
    ready, room = asyncio.Semaphore(0), asyncio.Semaphore(50)
    with Lives(directory / "data", directory, *_OPEN).relay() as relay:
        async with asyncio.TaskGroup() as tasks:
            for client in everybody:
                tasks.create_task(client.first(url_of(relay), ready, room))
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for _ in everybody:
                    await ready.acquire()
                while len(found.seen) < 2 * clients:  # noqa: ASYNC110  # until all are at it
                    await asyncio.sleep(0.05)
            began = time.monotonic()
            relay.process.send_signal(signal.SIGTERM)
            found.exit_code = await asyncio.to_thread(relay.process.wait, 60)
            found.drained_seconds = time.monotonic() - began
    with Lives(directory / "data", directory / "again", *_OPEN, "--port", str(relay.port)).relay():
        async with asyncio.timeout(_PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
            for client in everybody:
                tasks.create_task(client.again(url_of(relay)))
    return found


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        found = uvloop.run(drain(Path(directory), clients=given.clients, seed=given.seed))
    came = max(found.returned) - min(found.returned) if found.returned else 0.0
    say(
        f"  told to come back over {found.spread_seconds:.2f} s, at most {found.busiest_tenth} in the same tenth; "
        f"{len(found.returned)} were back within {came:.2f} s of the first"
    )
    say(
        f"drain: {found.byes} of {found.clients} clients told, drained in {found.drained_seconds:.2f} s with exit code "
        f"{found.exit_code}; lost {found.lost} of {len(found.accepted)} accepted"
    )
    return 0 if found.good else 1


if __name__ == "__main__":
    sys.exit(main())
