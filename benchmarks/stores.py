"""The same load on one relay whose store is RocksDB, and on one and two relays whose store is NATS JetStream.

Three NATS nodes, each message in three copies, each copy synced before it is acknowledged; everything on this machine,
so two relays and three nodes share the processors that one relay and RocksDB have for themselves. Take the ratios.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from aimessage.wire.frames import Accepted, Deliver, MailClass, Post
from benchmarks.figures import Sample
from benchmarks.links import FLAGS
from support.commands import Relay, running_relay
from support.nats_cluster import running_cluster
from support.relay import Peer

__all__ = ["stores"]

_LINKS = 50
_ONE_BY_ONE = 200
_SEALED = os.urandom(421)
_ON_ROCKSDB, _ON_ONE, _ON_TWO = "one relay on RocksDB", "one relay on JetStream", "two relays on JetStream"


def stores(directory: Path, seconds: float = 4) -> Iterator[Sample]:
    """What 50 busy links get through, durably acked and delivered; and what one message takes when it is alone."""
    with running_relay(directory / "rocksdb", *FLAGS) as relay:
        yield from _measured(_ON_ROCKSDB, [relay], seconds)
    yield from asyncio.run(_on_jetstream(directory, seconds))


async def _on_jetstream(directory: Path, seconds: float) -> list[Sample]:
    nodes = directory / "nodes"
    nodes.mkdir(parents=True)
    async with running_cluster(nodes) as cluster:
        return await asyncio.to_thread(_with_relays, directory, cluster.relay_flags, seconds)


def _with_relays(directory: Path, store: tuple[str, ...], seconds: float) -> list[Sample]:
    with ExitStack() as stack:
        relays = [stack.enter_context(running_relay(directory / f"relay-{at}", *FLAGS, *store)) for at in range(2)]
        return [*_measured(_ON_ONE, relays[:1], seconds), *_measured(_ON_TWO, relays, seconds)]


def _measured(what: str, relays: list[Relay], seconds: float) -> Iterator[Sample]:
    urls = [relay.url.replace("localhost", "127.0.0.1") + "/ws" for relay in relays]
    acked, whole = asyncio.run(_latencies(what, urls))
    floor = None if what == _ON_ROCKSDB else _ON_ROCKSDB
    yield Sample(f"{what}: post to ack", acked, "ms", floor and f"{floor}: post to ack")
    yield Sample(f"{what}: post to delivery", whole, "ms", floor and f"{floor}: post to delivery")
    yield Sample(
        f"{what}: {_LINKS} busy links", _rate(relays, seconds), "msg/s", floor and f"{floor}: {_LINKS} busy links"
    )


def _rate(relays: list[Relay], seconds: float) -> float:
    """Let a crowd send at each relay at the same time, to recipients at the other if there is one; return their sum."""
    crowds = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.crowd", relay.url, str(_LINKS // len(relays)), str(seconds)),
                *(f"r{len(relays)}{at}-", relays[(at + 1) % len(relays)].url),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for at, relay in enumerate(relays)
    ]
    told = [crowd.communicate(timeout=seconds + 120)[0] for crowd in crowds]
    if any(crowd.returncode for crowd in crowds):
        raise RuntimeError("the load failed")
    return sum(float(line.split()[0]) / float(line.split()[1]) for line in told)


async def _latencies(what: str, urls: list[str]) -> tuple[float, float]:
    """Return the medians, in milliseconds, of a message's way to its acknowledgement and to its recipient."""
    word = "".join(letter for letter in what if letter.isalpha()).lower()
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(Peer(urls[0], f"{word}-s"[-32:]))
        recipient = await stack.enter_async_context(Peer(urls[-1], f"{word}-r"[-32:]))
        await sender.register()
        await recipient.register()
        await recipient.subscribe()
        acked, whole = [], []
        for _ in range(_ONE_BY_ONE):
            began = time.perf_counter()
            sender.send(Post(sender.next_id(), recipient.name, os.urandom(16), 0, int(MailClass.MESSAGE), 0, _SEALED))
            ack, delivery = await asyncio.gather(_moment_of(sender, Accepted), _moment_of(recipient, Deliver))
            acked.append((ack - began) * 1e3)
            whole.append((delivery - began) * 1e3)
        return statistics.median(acked), statistics.median(whole)


async def _moment_of(peer: Peer, kind: type[Accepted] | type[Deliver]) -> float:
    while not any(isinstance(frame, kind) for frame in await peer.arrived()):
        pass
    return time.perf_counter()
