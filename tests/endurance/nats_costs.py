"""What one JetStream operation costs here, on one node and on three: the ground of the arithmetic in docs/scale.md.

    python tests/endurance/nats_costs.py [--seconds 3]

Every node writes through to its disk (`sync_interval: always`). All nodes and the client share this machine, so three
nodes have a third of it each: take the ratios, and measure on the machines that you mean to use.
"""  # fmt: skip

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StorageType, StreamConfig

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.relays import say
from support.nats_cluster import running_cluster

__all__ = ["costs_of"]

_BODY = b"x" * 400
_BATCH = 100
_CALLERS = 64

Work = Callable[[], Awaitable[object]]


class Bench:
    """One client, one stream and one bucket with *replicas* copies."""

    def __init__(self, client: Client, replicas: int) -> None:
        self.client = client
        self.js: JetStreamContext = client.jetstream(timeout=30)
        self.replicas = replicas
        self.stream = f"costs-{replicas}"
        self._numbers = count(1)
        self.deletions: list[float] = []

    async def make(self) -> None:
        """Make the stream and the bucket."""
        config = StreamConfig(
            name=self.stream, subjects=[f"{self.stream}.*"], num_replicas=self.replicas, storage=StorageType.FILE,
            allow_direct=True, allow_msg_ttl=True,
        )  # fmt: skip
        await self.js.add_stream(config)
        self.bucket = await self.js.create_key_value(KeyValueConfig(bucket=self.stream, replicas=self.replicas))

    async def append(self) -> None:
        """Append one message."""
        await self.js.publish(f"{self.stream}.box", _BODY)

    async def append_many(self) -> None:
        """Append a hundred, all on their way at once."""
        await asyncio.gather(*(self.append() for _ in range(_BATCH)))

    async def claim_name(self) -> None:
        """Create one key that nobody has."""
        await self.bucket.create(f"name-{next(self._numbers)}", _BODY)

    async def look_up(self) -> None:
        """Read the newest message of one subject, as a key is read."""
        await self.js.get_last_msg(self.stream, f"{self.stream}.box", direct=True)

    async def delete(self) -> None:
        """Delete one message without writing over it."""
        acknowledged = await self.js.publish(f"{self.stream}.gone", _BODY)
        began = time.perf_counter()
        request = f'{{"seq":{acknowledged.seq},"no_erase":true}}'.encode()
        await self.client.request(f"$JS.API.STREAM.MSG.DELETE.{self.stream}", request, timeout=30)
        self.deletions.append(time.perf_counter() - began)


async def _alone(work: Work, seconds: float) -> float:
    """Return the median milliseconds of *work*, one after another."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1_000


async def _together(work: Work, seconds: float, each: int = 1) -> float:
    """Return how many a second *work* comes to with many callers; one call counts for *each*."""
    done, end = count(), time.perf_counter() + seconds

    async def call_on() -> None:
        while time.perf_counter() < end:
            await work()
            next(done)

    began = time.perf_counter()
    await asyncio.gather(*(call_on() for _ in range(_CALLERS if each == 1 else 4)))
    return next(done) * each / (time.perf_counter() - began)


async def costs_of(client: Client, replicas: int, seconds: float) -> None:
    """Print a table of what each operation costs with so many copies."""
    bench = Bench(client, replicas)
    await bench.make()
    say(f"{replicas} {'copy' if replicas == 1 else 'copies'}: ms alone (median), then so many a second")
    for name, work, each in (
        ("append", bench.append, 1),
        (f"append, {_BATCH} on their way", bench.append_many, _BATCH),
        ("create a key", bench.claim_name, 1),
        ("direct get of the newest", bench.look_up, 1),
    ):
        alone, rate = await _alone(work, seconds), await _together(work, seconds, each)
        say(f"  {name:<28} {alone:8.2f} ms {rate:10.0f}/s")
    await _alone(bench.delete, seconds)
    say(f"  {'delete, no_erase':<28} {statistics.median(bench.deletions) * 1_000:8.2f} ms")
    bench.deletions.clear()


async def _measure(folder: Path, seconds: float) -> None:
    async with running_cluster(folder) as cluster:
        client = await nats.connect(cluster.urls)
        try:
            for replicas in (1, 3):
                await costs_of(client, replicas, seconds)
        finally:
            await client.close()


def main() -> int:
    """Measure for as long as the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), given.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
