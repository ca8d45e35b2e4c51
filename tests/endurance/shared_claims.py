"""Two stores on three NATS nodes: no one-time pair goes out twice, and a name claimed by all at once has one owner.

    python tests/endurance/shared_claims.py [--claims 10000] [--rounds 20]

`--claims` is how many pairs are asked for, half at each store, 64 at a time; `--rounds` how many names fifty callers
claim at once, half of them at each store.
"""  # fmt: skip

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.clock import SystemClock
from aimessage.stores.jetstream import Access, open_jetstream_store
from aimessage.stores.ports import Store
from aimessage.types import Username
from endurance.relays import say
from support.nats_cluster import NatsCluster, running_cluster
from support.stores import VAULT, account, name

__all__ = ["Claims", "claim_everything"]

_AT_ONCE = 64
_PAIRS_EACH = 100
_CALLERS = 50


@dataclass(frozen=True, slots=True)
class Claims:
    """What came of it."""

    asked: int
    served: int
    twice: int
    strangers: int  # pairs that nobody had stocked
    rounds: int
    winners: int

    @property
    def clean(self) -> bool:
        """Whether each pair went out at most once, none was lost, and each name has exactly one owner."""
        return not self.twice and not self.strangers and self.served == self.asked and self.winners == self.rounds

    def __str__(self) -> str:
        return (
            f"{self.twice} served twice, {self.strangers} unknown, {self.served} served of {self.asked} asked for; "
            f"{self.winners} owners of {self.rounds} names that {_CALLERS} claimed at once"
        )


async def claim_everything(cluster: NatsCluster, *, claims: int, rounds: int) -> Claims:
    """Stock *claims* pairs, claim each over two stores at once, then fight for *rounds* names."""
    async with AsyncExitStack() as stack:
        stores: list[Store] = []
        access = Access(tuple(cluster.urls), monitors=tuple(node.monitor_url for node in cluster.nodes))
        for _ in range(2):
            stores.append(await open_jetstream_store(access, replicas=3, clock=SystemClock()))
            stack.push_async_callback(stores[-1].close)
        served, stocked = await _claim_pairs(stores, claims)
        winners = sum([await _claim_name(stores, name(number)) for number in range(rounds)])
        known = sum(times for pair, times in served.items() if pair in stocked)
        twice = sum(times - 1 for times in served.values())
        return Claims(len(stocked), served.total(), twice, served.total() - known, rounds, winners)


async def _claim_pairs(stores: list[Store], claims: int) -> tuple[Counter[bytes], set[bytes]]:
    owners = [Username(f"owner-{number}") for number in range(-(-claims // _PAIRS_EACH))]
    stocked: set[bytes] = set()
    for owner in owners:
        pairs = [f"{owner}/{number}".encode() for number in range(_PAIRS_EACH)]
        await stores[0].pairs.stock(owner, VAULT, pairs)
        stocked.update(pairs)
    served: Counter[bytes] = Counter()
    wishes = iter([(store, owner) for owner in owners for _ in range(_PAIRS_EACH // 2) for store in stores])

    async def ask_on() -> None:
        for store, owner in wishes:
            pair = await store.pairs.claim(owner, VAULT)
            if pair is not None:
                served[pair] += 1

    await asyncio.gather(*(ask_on() for _ in range(_AT_ONCE)))
    return served, stocked


async def _claim_name(stores: list[Store], wanted: Username) -> bool:
    """Return whether all callers hear of one and the same owner, who is one of them."""
    keys = [bytes([number]) * 32 for number in range(_CALLERS)]
    heard = await asyncio.gather(
        *(stores[at % 2].directory.register(account(wanted, key)) for at, key in enumerate(keys))
    )
    owners = {there.signing_key for there in heard}
    return len(owners) == 1 and owners <= set(keys)


async def _run(folder: Path, claims: int, rounds: int) -> Claims:
    async with running_cluster(folder) as cluster:
        return await claim_everything(cluster, claims=claims, rounds=rounds)


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_run(Path(folder), given.claims, given.rounds))
    say(f"shared_claims: {found}")
    return 0 if found.clean else 1


if __name__ == "__main__":
    sys.exit(main())
