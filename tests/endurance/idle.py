"""What an idle connection costs the relay: thousands of agents that are logged in, subscribed and silent.

    python tests/endurance/idle.py [--connections 10000] [--store rocksdb]

All agents register first and leave, so that what an account costs is not counted; then they come back and stay. The
figure is the growth of the relay's resident memory, divided by the connections.
"""  # fmt: skip

import argparse
import asyncio
import resource
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.crypto.random import system_entropy
from aimessage.wire.frames import Proved, Subscribed
from endurance.relays import Lives, say, url_of
from endurance.vitals import Vitals, vitals_of
from support.relay import Peer

__all__ = ["Idleness", "idle_together"]

_TARGET_KIB = 20.0
_AT_ONCE = 50
_SPARE_DESCRIPTORS = 300


@dataclass(frozen=True, slots=True)
class Idleness:
    """The relay's vitals with nobody connected, with everybody, and once all have gone."""

    connections: int
    empty: Vitals
    full: Vitals
    left: Vitals

    @property
    def kib_each(self) -> float:
        """KiB of resident memory for each connection."""
        return (self.full.rss_bytes - self.empty.rss_bytes) / 1024 / self.connections


async def idle_together(directory: Path, store: str, connections: int) -> Idleness:
    """Connect so many agents at once, and return what they cost."""
    agents = [(f"idler-{number}", system_entropy(32)) for number in range(connections)]
    lives = Lives(
        directory / "data", directory, "--store", store, "--connections", "0", "--connections-per-address", "0"
    )
    room = asyncio.Semaphore(_AT_ONCE)
    with lives.relay() as relay:
        url, pid = url_of(relay), relay.process.pid
        sockets = vitals_of(pid).sockets

        async def register(name: str, secret: bytes) -> None:
            async with room, Peer(url, name, secret) as peer:
                assert isinstance(await peer.register(), Proved)

        async def stay(name: str, secret: bytes) -> None:
            async with room:
                peer = await stack.enter_async_context(Peer(url, name, secret))
                assert isinstance(await peer.login(), Proved)
                assert isinstance(await peer.subscribe(), Subscribed)

        await asyncio.gather(*(register(*agent) for agent in agents))
        empty = await _with_sockets(pid, sockets)
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stay(*agent) for agent in agents))
            full = await _with_sockets(pid, sockets + connections)
        left = await _with_sockets(pid, sockets)
    return Idleness(connections, empty, full, left)


async def _with_sockets(pid: int, sockets: int) -> Vitals:
    async with asyncio.timeout(60):
        while vitals_of(pid).sockets != sockets:  # noqa: ASYNC110  # the kernel's
            await asyncio.sleep(0.2)
    return vitals_of(pid)


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--store", default="rocksdb")
    given = parser.parse_args()
    needed, (_, hard) = given.connections + _SPARE_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed > hard:
        say(f"idle: not run: {needed} descriptors are needed and {hard} are allowed; see ulimit -Hn")
        return 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    with tempfile.TemporaryDirectory() as directory:
        found = uvloop.run(idle_together(Path(directory), given.store, given.connections))
    say(f"  nobody: {found.empty}\n  everybody: {found.full}\n  all gone: {found.left}")
    say(f"idle: {found.kib_each:.1f} KiB for each of {found.connections} connections ({given.store})")
    return 0 if found.kib_each <= _TARGET_KIB else 1


if __name__ == "__main__":
    sys.exit(main())
