"""A process that appends until it is killed, for tests of what a crash or a full disk leaves behind.

    append PATH          append for ever, printing each acked number
    starve PATH          append while no file may grow, then lift the limit and append again; prints the outcomes
    open PATH            print "opened", or the code of the error
    rate PATH            append for two seconds without and two seconds with the high-water mark, with 1, 16 and 256
                         callers at once; prints the rates and their ratios

`paranoid` behind PATH keeps a high-water mark.
"""  # fmt: skip

import asyncio
import resource
import sys
import time
from itertools import count
from pathlib import Path

from aimessage.clock import SystemClock
from aimessage.errors import AimessageError
from aimessage.stores.ports import Quotas, Receipt
from aimessage.stores.rocksdb import RocksStore, open_rocksdb_store
from support.stores import ALICE, contents, number, post

__all__: list[str] = []


def say(word: object) -> None:
    """Print one word for the test."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def append(store: RocksStore) -> None:
    """Append for ever, eight at a time, and print each number that was acked."""
    for start in count(1, 8):
        answers = await store.mailboxes.append([post(value, size=400) for value in range(start, start + 8)])
        for value, answer in enumerate(answers, start):
            if isinstance(answer, Receipt):
                say(value)


async def fill(store: RocksStore) -> int:
    """Append until a posting is refused, then print why; return the last number that was accepted."""
    for value in count(1):
        [answer] = await store.mailboxes.append([post(value, size=40_000)])
        if not isinstance(answer, Receipt):
            say(answer.code)
            return value - 1
    raise AssertionError


async def starve(store: RocksStore) -> None:
    """Make every write past a few hundred KiB fail, look, then give the space back."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, unlimited[1]))
    last = await fill(store)
    say("unwritable" if await store.check_writable() else "writable")
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    while await store.check_writable():  # noqa: ASYNC110 - it reopens by itself, and tells nobody
        await asyncio.sleep(0.05)
    [answer] = await store.mailboxes.append([post(999_999)])
    say("accepted" if isinstance(answer, Receipt) else answer.code)
    found = {entry.message_id for entry in await contents(store.mailboxes)}
    depth, _ = await store.mailboxes.depth(ALICE)
    counted = last > 1 and depth == len(found)
    say("whole" if counted and found >= {number(value) for value in [*range(1, last + 1), 999_999]} else len(found))


async def appended(path: Path, callers: int, *, paranoid: bool) -> float:
    """Return how many appends of 400 bytes a second *callers* at once bring to disk."""
    quotas = Quotas(messages=0, bytes=0, sender_share=0)
    store = await open_rocksdb_store(path, quotas=quotas, clock=SystemClock(), paranoid=paranoid)
    numbers = count(1)
    end = time.monotonic() + 2.0

    async def append_on() -> None:
        while time.monotonic() < end:
            await store.mailboxes.append([post(next(numbers), size=400)])

    start = time.monotonic()
    await asyncio.gather(*(append_on() for _ in range(callers)))
    rate = (next(numbers) - 1) / (time.monotonic() - start)
    await store.close()
    return rate


async def measure(path: Path) -> None:
    """Print what the high-water mark costs."""
    for callers in (1, 16, 256):
        plain = await appended(path / f"plain-{callers}", callers, paranoid=False)
        marked = await appended(path / f"marked-{callers}", callers, paranoid=True)
        say(f"{callers:4} callers: {plain:7.0f} appends/s, {marked:7.0f} with the mark, ratio {marked / plain:.2f}")


async def main(verb: str, path: Path, *, paranoid: bool) -> None:
    """Open the store and do what *verb* names."""
    if verb == "rate":
        await measure(path)
        return
    try:
        store = await open_rocksdb_store(path, clock=SystemClock(), paranoid=paranoid)
    except AimessageError as error:
        say(error.code)
        return
    try:
        match verb:
            case "append":
                await append(store)
            case "starve":
                await starve(store)
            case _:
                say("opened")
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), paranoid="paranoid" in sys.argv[3:]))
