"""Two relays on three NATS nodes: no one-time pair goes out twice; a name that fifty register at once has one owner.

    python tests/endurance/relay_claims.py [--fetches 10000] [--rounds 20]

What `shared_claims.py` shows of two stores, this shows of two relay processes, over the wire: `--fetches` bundles are
asked for, half at each relay, by many links that do not wait for each other.
"""  # fmt: skip

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.crypto.random import system_entropy
from aimessage.e2ee.prekeys import make_pairs
from aimessage.wire.frames import BundleAnswer, Done, FetchBundle, Proved, StockPairs
from aimessage.wire.limits import PAIRS_PER_STOCK
from endurance.relays import say, url_of
from support.commands import running_relay
from support.nats_cluster import NatsCluster, running_cluster
from support.relay import Peer

__all__ = ["RelayClaims", "fetch_everything"]

_LINKS = 8  # at each relay
_AT_ONCE = 32  # requests of one link
_CALLERS = 50
_OFF = ("--pairs", "0", "--lookups", "0")


@dataclass(frozen=True, slots=True)
class RelayClaims:
    """What came of it."""

    fetched: int
    served: int
    twice: int
    unknown: int  # pairs that nobody had stocked
    rounds: int
    winners: int

    @property
    def clean(self) -> bool:
        """Whether each pair went out once, and each name has exactly one owner."""
        return not self.twice and not self.unknown and self.served == self.fetched and self.winners == self.rounds

    def __str__(self) -> str:
        return (
            f"{self.twice} served twice, {self.unknown} unknown, {self.served} served in {self.fetched} fetches; "
            f"{self.winners} owners of {self.rounds} names that {_CALLERS} registered at once"
        )


async def fetch_everything(folder: Path, cluster: NatsCluster, *, fetches: int, rounds: int) -> RelayClaims:
    """Stock *fetches* pairs, fetch each over two relays at once, then register *rounds* names fifty times each."""
    with ExitStack() as stack:
        starts = [running_relay(folder / name, *cluster.relay_flags, *_OFF) for name in "ab"]
        # In a thread: the way from node to node leads through gates that this loop serves.
        relays = [await asyncio.to_thread(stack.enter_context, start) for start in starts]
        urls = [url_of(relay) for relay in relays]
        owners = [f"owner-{at}" for at in range(fetches // PAIRS_PER_STOCK)]
        stocked = [pair for at, owner in enumerate(owners) for pair in await _stock(urls[at % 2], owner)]
        served = await _fetch(urls, owners)
        winners = sum([await _register(urls, f"name-{number}") for number in range(rounds)])
    known = sum(times for pair, times in served.items() if pair in set(stocked))
    twice = sum(times - 1 for times in served.values())
    return RelayClaims(len(stocked), served.total(), twice, served.total() - known, rounds, winners)


async def _stock(url: str, owner: str) -> list[bytes]:
    async with Peer(url, owner) as peer:
        assert isinstance(await peer.register(), Proved)
        made = make_pairs(peer.account, vault_id=peer.vault_id, count=PAIRS_PER_STOCK, entropy=system_entropy)
        pairs = [pair.encode() for pair, _ in made]
        peer.send(StockPairs(peer.next_id(), pairs))
        await peer.expect(Done)
    return pairs


async def _fetch(urls: list[str], owners: list[str]) -> Counter[bytes]:
    """Ask for every pair, in no order, over many links of both relays at once."""
    asked = [owner for owner in owners for _ in range(PAIRS_PER_STOCK)]
    Random(1).shuffle(asked)
    served: Counter[bytes] = Counter()

    async def ask(url: str, name: str, mine: list[str]) -> None:
        async with Peer(url, name) as peer:
            await peer.register()
            for at in range(0, len(mine), _AT_ONCE):
                lot = mine[at : at + _AT_ONCE]
                peer.send(*(FetchBundle(peer.next_id(), owner) for owner in lot))
                served.update([(await peer.expect(BundleAnswer)).pair for _ in lot])

    count = 2 * _LINKS
    await asyncio.gather(*(ask(urls[at % 2], f"asker-{at}", asked[at::count]) for at in range(count)))
    return served


async def _register(urls: list[str], name: str) -> int:
    """Return how many of those who register *name* at the same time get it."""
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(Peer(urls[at % 2], name)) for at in range(_CALLERS)]
        answers = await asyncio.gather(*(caller.register() for caller in callers))
    return sum(isinstance(answer, Proved) for answer in answers)


async def _main(fetches: int, rounds: int) -> RelayClaims:
    with tempfile.TemporaryDirectory() as directory:
        async with running_cluster(Path(directory)) as cluster:
            return await fetch_everything(Path(directory), cluster, fetches=fetches, rounds=rounds)


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetches", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    found = asyncio.run(_main(given.fetches, given.rounds))
    say(f"relay_claims: {found}")
    return 0 if found.clean else 1


if __name__ == "__main__":
    sys.exit(main())
