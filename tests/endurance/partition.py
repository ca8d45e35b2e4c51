"""What one partition takes: appends through the store itself, to mailboxes that all lie in one stream of three copies.

    python tests/endurance/partition.py [--seconds 5]

The store writes a commit as one atomic batch; the sizes tried are those of a quiet relay, of a busy one, and the most
that a batch holds. Every node writes through to its disk, and all three share this machine.
"""  # fmt: skip

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.stores.jetstream import Access, open_jetstream_store
from aimessage.stores.jetstream.layout import PARTITIONS, mailbox
from aimessage.stores.ports import Posting, Quotas, Receipt, Store
from aimessage.types import MessageId, Username
from endurance.relays import say
from support.nats_cluster import running_cluster

__all__ = ["rate_of"]

_SIZES = (1, 16, 256)
_OWNERS = 8
_SEALED = bytes(421)
_UNBOUNDED = Quotas(messages=0, bytes=0, sender_share=0, controls=0)


async def rate_of(store: Store, owners: list[Username], size: int, seconds: float) -> float:
    """Append *size* messages a commit for *seconds*; return how many a second were acknowledged."""
    loop, stored = asyncio.get_running_loop(), 0
    began, until = time.perf_counter(), loop.time() + seconds
    while loop.time() < until:
        results = await store.mailboxes.append([_posting(owners[at % len(owners)]) for at in range(size)])
        assert all(isinstance(result, Receipt) for result in results)
        stored += len(results)
    return stored / (time.perf_counter() - began)


def _posting(owner: Username) -> Posting:
    now = int(time.time() * 1000)
    return Posting(owner, Username("sender"), MessageId(system_entropy(16)), 0, 0, now, 0, _SEALED)


async def _main(seconds: float) -> None:
    named = [Username(f"owner-{number}") for number in range(1_000)]
    first = mailbox(named[0], PARTITIONS)[0]
    owners = [name for name in named if mailbox(name, PARTITIONS)[0] == first][:_OWNERS]
    with tempfile.TemporaryDirectory() as directory:
        async with running_cluster(Path(directory)) as cluster:
            monitors = tuple(node.monitor_url for node in cluster.nodes)
            access = Access(tuple(cluster.urls), monitors=monitors)
            store = await open_jetstream_store(access, replicas=3, quotas=_UNBOUNDED, clock=SystemClock())
            try:
                for size in _SIZES:
                    rate = await rate_of(store, owners, size, seconds)
                    say(f"partition: {size:3} a commit: {rate:,.0f} messages a second, {1000 * size / rate:.1f} ms")
            finally:
                await store.close()


def main() -> int:
    """Run for as long as the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    asyncio.run(_main(parser.parse_args().seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
