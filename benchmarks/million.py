"""A mailbox of a million messages (quotas off by flag): what adding costs, starting on it, and fetching from it."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

from aimessage.clock import SystemClock
from aimessage.stores.ports import Posting, Quotas
from aimessage.stores.rocksdb import open_rocksdb_store
from aimessage.types import MessageId, Username
from aimessage.wire.frames import Ack, Acknowledge, Deliver, Subscribed
from benchmarks.figures import Sample
from benchmarks.links import FLAGS, rss_kib
from support.commands import Relay, running_relay
from support.relay import Peer

__all__ = ["million"]

_SEALED = os.urandom(421)
_LOT = 256
_DRAINED = 20_000
_UNBOUNDED = Quotas(messages=0, bytes=0, sender_share=0, controls=0)


def million(directory: Path, count: int = 1_000_000) -> Iterator[Sample]:
    """Fill a mailbox through the store, then start a relay on it."""
    secret, place = os.urandom(32), directory / "relay"
    with running_relay(place, *FLAGS) as relay:
        asyncio.run(_enrol(relay, secret))
    small, big = asyncio.run(_fill(place / "data", count))
    yield Sample("appending to an empty mailbox", small, "msg/s")
    yield Sample(f"appending to a mailbox of {count}", big, "msg/s", "appending to an empty mailbox")
    began = time.perf_counter()
    with running_relay(directory / "again", "--db-path", str(place / "data"), *FLAGS) as relay:
        yield Sample(f"relay's start on a mailbox of {count}", (time.perf_counter() - began) * 1e3, "ms")
        yield Sample(f"relay's memory on a mailbox of {count}", rss_kib(relay) / 1024, "MiB")
        first, rate = asyncio.run(_drain(relay, secret))
    yield Sample(f"first delivery from a mailbox of {count}", first, "ms")
    yield Sample(f"delivered and acknowledged from a mailbox of {count}", rate, "msg/s")


async def _enrol(relay: Relay, secret: bytes) -> None:
    async with Peer(_url(relay), "hoarder", secret) as peer:
        await peer.register()


async def _fill(data: Path, count: int) -> tuple[float, float]:
    """Return how many messages a second went in at the beginning and at the end."""
    store = await open_rocksdb_store(data, quotas=_UNBOUNDED, clock=SystemClock())
    try:
        marks = [time.perf_counter()]
        for at in range(0, count, 4 * _LOT):
            await asyncio.gather(*(store.mailboxes.append(_lot()) for _ in range(4)))
            if at % (40 * _LOT) == 0:
                marks.append(time.perf_counter())
    finally:
        await store.close()
    lots = 40 * _LOT
    return lots / (marks[3] - marks[2]), lots / (marks[-1] - marks[-2])


def _lot() -> list[Posting]:
    now = int(time.time() * 1000)
    owner, sender = Username("hoarder"), Username("sender")
    return [Posting(owner, sender, MessageId(os.urandom(16)), 0, 0, now, 0, _SEALED) for _ in range(_LOT)]


async def _drain(relay: Relay, secret: bytes) -> tuple[float, float]:
    """Return the milliseconds to the first message, and how many a second are delivered and acknowledged."""
    async with Peer(_url(relay), "hoarder", secret) as peer:
        await peer.login()
        began = time.perf_counter()
        answer = await peer.subscribe()
        assert isinstance(answer, Subscribed)
        taken, first = 0, 0.0
        while taken < _DRAINED:
            mail = [frame for frame in await peer.arrived() if isinstance(frame, Deliver)]
            if mail and not taken:
                first = time.perf_counter()
            taken += len(mail)
            if mail:
                peer.send(Acknowledge(answer.subscription, [Ack(each.position, each.message_id) for each in mail]))
        return (first - began) * 1e3, taken / (time.perf_counter() - first)


def _url(relay: Relay) -> str:
    return relay.url.replace("localhost", "127.0.0.1") + "/ws"
