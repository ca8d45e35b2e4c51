"""The single writer: one thread that drains a queue, decides, commits up to 256 jobs with one fsync, and reports.

Compare-and-set is safe because every decision is made here, against the engine and what is pending in the same
batch. A failed write leaves the engine's handle dead and the in-memory counts ahead of the disk, so everybody in
the batch is refused, and the next attempt reopens the engine and counts again.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

import msgspec

from aimessage.errors import AimessageError, RelayUnavailable, StoreDamaged
from aimessage.stores.rocksdb.engine import Engine

__all__ = ["Batch", "Counted", "Writer"]

_JOBS_PER_COMMIT = 256
_JOBS_WAITING = 65_536
_FLOOR_BYTES = 64 << 20
_RETRY_SECONDS = 0.5
_STALL_SECONDS = 5.0  # one commit; a disk that takes longer is not coming back by itself

T = TypeVar("T")


class Counted(Protocol):
    """Counts that change with a batch, and are written once for all of it."""

    @property
    def key(self) -> bytes:
        """Where they are kept."""
        ...

    def record(self) -> bytes:
        """Return what is written under the key."""
        ...

    def committed(self) -> None:
        """The batch is on disk."""
        ...


class Batch:
    """What one commit will change, readable as if it were committed; but not what is counted: `count`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.items: dict[bytes, bytes | None] = {}
        self._counted: dict[Counted, None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value under *key*, pending changes included."""
        return self.items[key] if key in self.items else self._engine.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set *key*."""
        self.items[key] = value

    def delete(self, key: bytes) -> None:
        """Remove *key*."""
        self.items[key] = None

    def count(self, counted: Counted) -> None:
        """These counts have changed: what they are in the end is written."""
        if counted not in self._counted:
            self._counted[counted] = None
            self.items[counted.key] = b""

    def commit(self, *, lasting: bool = True) -> None:
        """Write everything, and tell what was counted once it is written; *lasting* and errors: `Engine.write`."""
        for counted in self._counted:
            self.items[counted.key] = counted.record()
        self._engine.write(self.items, lasting=lasting)
        for counted in self._counted:
            counted.committed()

    def scan(self, start: bytes, stop: bytes) -> list[tuple[bytes, bytes]]:
        """Return all pairs with start ≤ key < stop, pending changes included; for small ranges."""
        found: dict[bytes, bytes | None] = dict(self._engine.scan(start, stop))
        found.update((key, value) for key, value in self.items.items() if start <= key < stop)
        return sorted((key, value) for key, value in found.items() if value is not None)


class _Job(msgspec.Struct, frozen=True, eq=False):
    work: Callable[[Batch], object]
    grows: bool
    lasting: bool
    future: "asyncio.Future[object]"


_Outcome = tuple["asyncio.Future[object]", object]


class Writer:
    """Runs jobs in the writer thread; *reload* rebuilds what is counted in memory after the engine was reopened."""

    def __init__(self, engine: Engine, reload: Callable[[], None], free_bytes: Callable[[], int]) -> None:
        self._engine = engine
        self._reload = reload
        self._free_bytes = free_bytes
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._broken = False
        self._damage: StoreDamaged | None = None
        self._running: _Job | None = None
        self._busy_since: float | None = None
        self.on_commit: Callable[[float], None] = lambda seconds: None  # called in the writer thread
        self._thread = threading.Thread(target=self._main, name="store-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[Batch], T], *, grows: bool, lasting: bool = True) -> T:
        """Run *work* in the writer thread and return its result when the commit that holds it is on disk.

        *work* may raise one of our errors before it changes anything. Work that *grows* the store is refused when
        the disk is nearly full. What is not *lasting* is written without a sync: a power cut, and nothing else, may
        undo it, until the next lasting commit. Raises RelayUnavailable: not committed, try again.
        """
        if self._queue.qsize() >= _JOBS_WAITING:
            raise RelayUnavailable("the store is busy")
        future: asyncio.Future[object] = self._loop.create_future()
        self._queue.put(_Job(work, grows, lasting, future))
        return await future  # type: ignore[return-value]  # the future holds what *work* returned

    def refusal(self) -> str | None:
        """Return why writes that grow the store are refused now, or None.

        Raises StoreDamaged: the store was closed after a failed write, and what lies there does not open again.
        """
        if self._damage is not None:
            raise StoreDamaged(self._damage.message, hint=self._damage.hint)
        if self._broken:
            return "the store does not take writes at the moment"
        return self._shortage()

    def stall(self) -> str | None:
        """Return that the disk keeps the writer waiting, or None; asks nothing of the disk itself."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > _STALL_SECONDS:
            return "the relay's disk does not answer"
        return None

    def _shortage(self) -> str | None:
        """Return why the disk may have no room for more, or None."""
        try:
            free = self._free_bytes()
            has_room = free >= _FLOOR_BYTES and any(
                free >= 2 * self._engine.wal_bytes(exactly=exactly) for exactly in (False, True)
            )
        except OSError as error:  # no descriptor is left to look with: what frees space needs none, and goes on
            return f"the relay cannot look at its disk: {error.strerror}"
        return None if has_room else "the relay's disk is nearly full"

    async def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _main(self) -> None:
        running = True
        while running:
            jobs = self._take()
            running = None not in jobs
            self._busy_since = time.monotonic()
            self._commit([job for job in jobs if job is not None])
            self._busy_since = None

    def _take(self) -> list[_Job | None]:
        jobs: list[_Job | None] = []
        with suppress(queue.Empty):
            jobs.append(self._queue.get(timeout=_RETRY_SECONDS if self._broken else None))
            while jobs[-1] is not None and len(jobs) < _JOBS_PER_COMMIT:
                jobs.append(self._queue.get_nowait())
        return jobs

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            if self._broken:
                self._recover()
            outcomes = self._work(jobs)
        except StoreDamaged as damage:
            outcomes = [(job.future, damage) for job in jobs]
        except RelayUnavailable:
            self._broken = True
            outcomes = [(job.future, RelayUnavailable("the store did not take the write")) for job in jobs]
        except Exception as bug:  # noqa: BLE001 - the thread's boundary: its caller gets it, and the counts are rebuilt
            self._broken = True
            unlucky = RelayUnavailable("the store undid a commit")
            outcomes = [(job.future, bug if job is self._running else unlucky) for job in jobs]
        if outcomes:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, outcomes)

    def _work(self, jobs: list[_Job]) -> list[_Outcome]:
        batch = Batch(self._engine)
        full = self.refusal() if self._broken or any(job.grows for job in jobs) else None
        outcomes: list[_Outcome] = []
        for job in jobs:
            self._running = job
            outcomes.append((job.future, self._outcome(job, batch, full)))
        self._running = None
        if batch.items:
            began = time.monotonic()
            batch.commit(lasting=any(job.lasting for job in jobs))
            self.on_commit(time.monotonic() - began)
        return outcomes

    def _outcome(self, job: _Job, batch: Batch, full: str | None) -> object:
        if full is not None and (job.grows or self._broken):
            return RelayUnavailable(full)
        try:
            return job.work(batch)
        except AimessageError as error:
            return error

    def _recover(self) -> None:
        if self._damage is not None or self._shortage() is not None or not self._engine.can_grow():
            return  # and until then, what is there can still be read
        try:
            self._engine.reopen()
            self._engine.write({b"zprobe": b""})
            self._reload()
            self._broken = False
        except StoreDamaged as damage:  # it stays closed, and everybody who asks is told
            self._damage = damage
        except AimessageError:  # still not: the next job or the next half second tries again
            pass


def _resolve(outcomes: list[_Outcome]) -> None:
    for future, outcome in outcomes:
        if future.done():  # its caller was cancelled; what was written stays
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
