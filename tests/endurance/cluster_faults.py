"""Faults of a cluster under load: three NATS nodes, two relays; nothing acked is lost, doubled or out of order.

    python tests/endurance/cluster_faults.py [--faults 50] [--seed 1]

Each fault is one of: a node killed, frozen, or parted from the others; all nodes killed at once; a relay killed. It
lasts a few seconds, is mended, and the next one comes when the cluster is well again. Agents of the load reconnect to
whichever relay is there. Printed of each fault: the longest pause between two acks, in seconds.
"""  # fmt: skip

import argparse
import asyncio
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.load import Crowd, Verdict
from endurance.parties import Recipient, Sender, until_cut
from endurance.relays import say, url_of
from support.commands import Relay, running_relay
from support.nats_cluster import NatsCluster, running_cluster

__all__ = ["FAULTS", "Report", "break_again_and_again"]

FAULTS = ("node killed", "node frozen", "node parted", "all nodes killed", "relay killed")
_RELAYS = 2
_LASTS_SECONDS = 3.0
_FLOWING = 50  # messages accepted between two faults
_PATIENCE_SECONDS = 90
_NO_QUOTAS = ("--mailbox-messages", "0", "--mailbox-bytes", "0", "--mailbox-sender-share", "0")


class Fleet:
    """Relays on one cluster; each can be killed and is then replaced by another."""

    def __init__(self, folder: Path, cluster: NatsCluster) -> None:
        self._folder = folder
        self._flags = (*cluster.relay_flags, *_NO_QUOTAS)
        self._numbers = count(1)
        self._random = Random(1)
        self.running: list[tuple[Relay, AbstractContextManager[Relay]]] = []

    async def start(self) -> None:
        """Start one more."""
        relay = running_relay(self._folder / f"relay-{next(self._numbers)}", *self._flags)
        self.running.append((await asyncio.to_thread(relay.__enter__), relay))

    async def kill(self) -> None:
        """End one at once."""
        relay, whole = self.running.pop(self._random.randrange(len(self.running)))
        relay.process.kill()
        await asyncio.to_thread(whole.__exit__, None, None, None)

    async def stop(self) -> None:
        """End all."""
        while self.running:
            await self.kill()

    def any_url(self) -> str:
        """Return where one of them listens."""
        return url_of(self._random.choice(self.running)[0])

    async def are_ready(self, *, ready: bool = True) -> None:
        """Return when every one of them says that it is ready, or that it is not."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for relay, _ in self.running:
                while (await _status(relay, "/ready") == 200) is not ready:  # noqa: ASYNC110 - another process tells
                    await asyncio.sleep(0.1)


async def _status(relay: Relay, path: str) -> int:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
    except (OSError, TimeoutError):
        return 0
    return int(line.split()[1]) if line else 0


@dataclass
class Report:
    """What came of the faults: the verdict, and each fault's longest pause between two acks, in seconds."""

    verdict: Verdict | None = None
    pauses: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    unavailable: int = 0
    """Posts that were refused with `relay_unavailable` meanwhile; they went out again."""

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, out of order or altered, and nothing has had its effect twice.

        A repeat that lies beside the first, which a change of leaders can leave, has none: its recipient knows the id.
        """
        return self.verdict is not None and not (self.verdict.lost or self.verdict.inversions or self.verdict.altered)

    def lines(self) -> Iterator[str]:
        """Tell."""
        for fault, pauses in self.pauses.items():
            ordered = sorted(pauses)
            yield f"  {fault:17} {len(pauses):3} times, longest pause: median {ordered[len(ordered) // 2]:.1f} s, " \
                  f"most {ordered[-1]:.1f} s"  # fmt: skip
        yield f"  {self.unavailable} posts were told to come again"
        yield f"  {self.verdict.twice if self.verdict else 0} repeats lay beside the first, and were applied once"


@dataclass
class _Trial:
    cluster: NatsCluster
    fleet: Fleet
    crowd: Crowd
    random: Random
    lasts: float

    async def fault(self, name: str) -> None:
        """Let one fault happen, last and be mended."""
        node = self.random.choice(self.cluster.nodes)
        match name:
            case "node killed":
                await node.kill()
                await asyncio.sleep(self.lasts)
                await node.start()
            case "node frozen":
                node.freeze()
                await asyncio.sleep(self.lasts)
                node.thaw()
            case "node parted":
                self.cluster.cut_off(node)
                await asyncio.sleep(self.lasts)
                self.cluster.join_again(node)
            case "all nodes killed":
                await asyncio.gather(*(each.kill() for each in self.cluster.nodes))
                await self.fleet.are_ready(ready=False)
                for each in self.cluster.nodes:
                    await each.start()
            case "relay killed":
                await self.fleet.kill()
                await asyncio.sleep(self.lasts / 3)
                await self.fleet.start()
            case _:
                raise ValueError(name)

    async def well(self) -> None:
        """Return when all that was broken works again, and mail flows."""
        await self.cluster.healthy()
        await self.fleet.are_ready()
        await self.flowing()

    async def flowing(self) -> None:
        """Return when some more messages have been accepted."""
        wanted = self.crowd.acked + _FLOWING
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while self.crowd.acked < wanted:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)


async def _stay(party: Sender | Recipient, where: Callable[[], str]) -> None:
    """Be connected to whichever relay is there, whatever breaks."""
    while not (isinstance(party, Sender) and party.limit is not None and len(party.acked) >= party.limit):
        await until_cut(party.run(where()))
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _timed_pauses(crowd: Crowd, pauses: list[float]) -> AsyncIterator[None]:
    """Append the longest time without an ack within the context."""
    loop = asyncio.get_running_loop()
    longest, last, acked = 0.0, loop.time(), crowd.acked

    async def watch() -> None:
        nonlocal longest, last, acked
        while True:
            await asyncio.sleep(0.01)
            if crowd.acked != acked:
                longest, last, acked = max(longest, loop.time() - last), loop.time(), crowd.acked

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        pauses.append(max(longest, loop.time() - last))


async def break_again_and_again(
    folder: Path, faults: list[str], *, seed: int = 1, lasts: float = _LASTS_SECONDS
) -> Report:
    """Let *faults* happen under load, one behind the other, and return what came of them."""
    report = Report()
    crowd = Crowd(senders=2, recipients=2, window=50, seed=seed)
    async with running_cluster(folder) as cluster:
        fleet = Fleet(folder, cluster)
        try:
            await asyncio.gather(*(fleet.start() for _ in range(_RELAYS)))
            await crowd.register(fleet.any_url())
            trial = _Trial(cluster, fleet, crowd, Random(seed), lasts)
            async with asyncio.TaskGroup() as tasks:
                senders = [tasks.create_task(_stay(each, fleet.any_url)) for each in crowd.senders]
                recipients = [tasks.create_task(_stay(each, fleet.any_url)) for each in crowd.recipients]
                await trial.flowing()
                for number, name in enumerate(faults, start=1):
                    async with _timed_pauses(crowd, report.pauses[name]):
                        await trial.fault(name)
                        await trial.well()
                    say(f"  {number:3} {name:17} {report.pauses[name][-1]:5.1f} s, {crowd.acked} acked")
                for sender in crowd.senders:
                    sender.limit = len(sender.letters)
                await asyncio.gather(*senders)
                for recipient in recipients:
                    recipient.cancel()
            await crowd.collect(fleet.any_url())
        finally:
            await fleet.stop()
    report.verdict = crowd.verdict()
    report.unavailable = sum(sum(sender.refusals.values()) for sender in crowd.senders)
    return report


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    random = Random(given.seed)
    faults = [FAULTS[number % len(FAULTS)] for number in range(given.faults)]
    random.shuffle(faults)
    with tempfile.TemporaryDirectory() as directory:
        report = uvloop.run(break_again_and_again(Path(directory), faults, seed=given.seed))
    for line in report.lines():
        say(line)
    say(f"cluster_faults: {report.verdict} in {given.faults} faults")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(main())
