"""The load on a relay: half of the links send as fast as they are acked, the other half receive and acknowledge.

python -m benchmarks.crowd URL LINKS SECONDS     prints what was delivered, in how many seconds, and our own CPU;
    [PREFIX [URL]]                               stderr tells when the clock starts. PREFIX is of all names, URL where
                                                 the recipients are, if not at the senders' relay
"""

import asyncio
import os
import ssl
import sys
import time
from dataclasses import dataclass, field

import uvloop

from aimessage.wire.frames import Accepted, Ack, Acknowledge, Deliver, MailClass, Post, Refused
from support.relay import Peer

_WINDOW = 64  # of each sender, unanswered
_BATCH = 16
_SEALED = os.urandom(421)


@dataclass
class Load:
    """What all of them have done since the clock started."""

    accepted: int = 0
    delivered: int = 0
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


async def send(peer: Peer, to: str, load: Load) -> None:
    """Post batches, at most a window ahead of the answers."""
    under_way = 0
    while not load.is_over.is_set() or under_way:
        while not load.is_over.is_set() and under_way + _BATCH <= _WINDOW:
            peer.send(
                *(
                    Post(peer.next_id(), to, os.urandom(16), 0, int(MailClass.MESSAGE), 0, _SEALED)
                    for _ in range(_BATCH)
                )
            )
            under_way += _BATCH
        for frame in await peer.arrived():
            if isinstance(frame, Refused):
                raise SystemExit(f"refused: {frame.code}")
            if isinstance(frame, Accepted):
                under_way -= 1
                load.accepted += 1


async def receive(peer: Peer, load: Load) -> None:
    """Acknowledge what is delivered, one frame for all that came together."""
    while True:
        acks = [frame for frame in await peer.arrived() if isinstance(frame, Deliver)]
        if acks:
            peer.send(Acknowledge(acks[0].subscription, [Ack(each.position, each.message_id) for each in acks]))
            load.delivered += len(acks)


async def main(url: str, links: int, seconds: float, prefix: str = "", to: str = "") -> None:
    """Join them all, then let them work for *seconds*."""
    load = Load()
    here, there = (each.replace("localhost", "127.0.0.1") + "/ws" for each in (url, to or url))
    tls = ssl.create_default_context() if url.startswith("wss:") else None  # SSL_CERT_FILE says whose word counts
    senders = [Peer(here, f"{prefix}sender-{at}", tls=tls) for at in range(links // 2)]
    recipients = [Peer(there, f"{prefix}recipient-{at}", tls=tls) for at in range(links // 2)]
    for peer in (*senders, *recipients):
        await peer.__aenter__()
        await peer.register()
    for peer in recipients:
        await peer.subscribe()
    receiving = [asyncio.create_task(receive(peer, load)) for peer in recipients]
    sys.stderr.write("began\n")
    sys.stderr.flush()
    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for peer, recipient in zip(senders, recipients, strict=True):
            group.create_task(send(peer, recipient.name, load))
        await asyncio.sleep(seconds)
        load.is_over.set()
    while load.delivered < load.accepted:  # noqa: ASYNC110 - counted by many tasks, looked at once
        await asyncio.sleep(0.01)
    sys.stdout.write(f"{load.delivered} {time.perf_counter() - began} {time.process_time() - cpu}\n")
    for task in receiving:
        task.cancel()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:6]))
