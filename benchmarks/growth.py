"""How each figure grows: with connections, with a mailbox's backlog, with the number of mailboxes, with history."""

import asyncio
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from aimessage.clock import SystemClock
from aimessage.stores.ports import Posting, Quotas
from aimessage.stores.rocksdb import RocksStore, open_rocksdb_store
from aimessage.types import MessageId, Position, Username
from benchmarks.agents import NO_QUOTAS, enrol, flowing
from benchmarks.figures import Sample
from benchmarks.floors import USER_BIN, run_ms
from benchmarks.links import relay
from support.commands import running_relay

__all__ = ["backlog", "connections", "history", "mailboxes"]

_SEALED = os.urandom(421)
_LOT = 256
_UNBOUNDED = Quotas(messages=0, bytes=0, sender_share=0, controls=0)


def connections(directory: Path, steps: Sequence[int] = (10, 50, 200, 1_000, 3_000)) -> Iterator[Sample]:
    """The relay's throughput, durably acked and delivered, by busy links."""
    for links in steps:
        [rate, cpu, _] = relay(directory / str(links), links, 3, 0)
        yield Sample(f"relay's throughput at {links} links", rate.value, "msg/s")
        yield Sample(f"relay's CPU a message at {links} links", cpu.value, "µs")


def backlog(directory: Path, steps: Sequence[int] = (0, 1_000, 10_000, 100_000, 300_000)) -> Iterator[Sample]:
    """What one more message costs a mailbox, by what waits in it, and fetching the first of them."""
    return iter(asyncio.run(_backlog(directory, steps)))


async def _backlog(directory: Path, steps: Sequence[int]) -> list[Sample]:
    store = await open_rocksdb_store(directory / "store", quotas=_UNBOUNDED, clock=SystemClock())
    found, held = [], 0
    try:
        for step in steps:
            while held < step:
                held += await _append(store, ["hoarder"] * 16)
            rate, count = await _rate(store, ["hoarder"] * 16)
            held += count
            found.append(Sample(f"appending to a mailbox at {step} waiting", rate, "msg/s"))
            found.append(Sample(f"first 64 of a mailbox at {step} waiting", await _first(store), "ms"))
    finally:
        await store.close()
    return found


def mailboxes(directory: Path, steps: Sequence[int] = (100, 1_000, 10_000, 100_000)) -> Iterator[Sample]:
    """What one more message costs the store, and its start, by how many mailboxes hold mail."""
    return iter(asyncio.run(_mailboxes(directory, steps)))


async def _mailboxes(directory: Path, steps: Sequence[int]) -> list[Sample]:
    found, made, dice = [], 0, random.Random(1)
    for step in steps:
        store = await open_rocksdb_store(directory / "store", quotas=_UNBOUNDED, clock=SystemClock())
        try:
            owners = [f"agent-{number}" for number in range(made, step)]
            for at in range(0, len(owners), 16 * _LOT):
                await asyncio.gather(*(store.mailboxes.append([_posting(owner) for owner in lot])
                                       for lot in _lots(owners[at : at + 16 * _LOT])))  # fmt: skip
            made = step
            rate, _ = await _rate(store, [f"agent-{dice.randrange(step)}" for _ in range(64)])
        finally:
            await store.close()
        began = time.perf_counter()
        await (await open_rocksdb_store(directory / "store", quotas=_UNBOUNDED, clock=SystemClock())).close()
        found.append(Sample(f"appending anywhere at {step} mailboxes", rate, "msg/s"))
        found.append(Sample(f"the store's start at {step} mailboxes", (time.perf_counter() - began) * 1e3, "ms"))
    return found


def history(directory: Path, steps: Sequence[int] = (0, 10_000, 30_000, 100_000)) -> Iterator[Sample]:
    """What two agents get through, and what their commands take, by what their vaults remember."""
    with running_relay(directory / "relay", *NO_QUOTAS) as running:
        enrol(directory, running, "sender-0", "recipient-0")
        home = {"AIMESSAGE_HOME": str(directory / "home")}
        send = (USER_BIN / "aimessage", "send", "-a", "sender-0", "-t", "recipient-0", "-m")
        known = 0
        for step in steps:
            if step > known:
                flowing(directory, running, step - known)
            rate = flowing(directory, running, 5_000)
            known = max(known, step) + 5_000
            yield Sample(f"throughput of a pair at {step} remembered", rate, "msg/s")
            cold = sorted(run_ms(*send, f"{step} {number}", repeat=1, **home) for number in range(9))
            yield Sample(f"cold send at {step} remembered", cold[4], "ms")
            look = (USER_BIN / "aimessage", "inbox", "-a", "recipient-0")
            yield Sample(f"inbox at {step} remembered", run_ms(*look, repeat=5, **home), "ms")


def _posting(owner: str) -> Posting:
    now = int(time.time() * 1000)
    return Posting(Username(owner), Username("sender"), MessageId(os.urandom(16)), 0, 0, now, 0, _SEALED)


def _lots(owners: Sequence[str]) -> Iterator[Sequence[str]]:
    return (owners[at : at + _LOT] for at in range(0, len(owners), _LOT))


async def _append(store: RocksStore, owners: Sequence[str]) -> int:
    """Append a lot for each of *owners*, four at a time, and return how many messages these are."""
    for at in range(0, len(owners), 4):
        lots = ([_posting(owner) for _ in range(_LOT)] for owner in owners[at : at + 4])
        await asyncio.gather(*(store.mailboxes.append(lot) for lot in lots))
    return _LOT * len(owners)


async def _rate(store: RocksStore, owners: Sequence[str]) -> tuple[float, int]:
    began = time.perf_counter()
    count = await _append(store, owners)
    return count / (time.perf_counter() - began), count


async def _first(store: RocksStore) -> float:
    """Return the milliseconds to the 64th message of the mailbox."""
    began = time.perf_counter()
    await store.mailboxes.page(Username("hoarder"), after=Position(0), now_ms=0, limit=64)
    return (time.perf_counter() - began) * 1e3
