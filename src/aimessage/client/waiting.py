"""How a flow waits: on an event loop beside others, or by blocking its thread, alone. The flows do not know which."""

import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aimessage.clock import Clock, SystemClock
from aimessage.errors import VaultUnavailable

if TYPE_CHECKING:
    import asyncio

__all__ = ["Blocking", "OnLoop", "Waiting", "run_blocking"]

_T = TypeVar("_T")


class Waiting(Protocol):
    """What a flow that waits needs. Nothing else in it may suspend."""

    def within(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """A context that ends with TimeoutError once *seconds* have passed in it."""
        ...

    async def pause(self, seconds: float) -> None:
        """Return after *seconds*."""
        ...

    def turn(self, name: str, *, patient: bool = True) -> AbstractAsyncContextManager[object]:
        """A context that only one flow of this process is in at a time, of all that give this *name*; in order.

        Raises VaultUnavailable: another is in it, and the caller is not *patient*.
        """
        ...


class OnLoop:
    """Beside other tasks of the running event loop; asyncio is imported by whoever waits so, not before."""

    def __init__(self) -> None:
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    def within(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """A context that ends with TimeoutError once *seconds* have passed in it."""
        import asyncio

        return asyncio.timeout(seconds)

    async def pause(self, seconds: float) -> None:
        """Return after *seconds*."""
        import asyncio

        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def turn(self, name: str, *, patient: bool = True) -> AsyncIterator[None]:
        """A context that only one flow of this process is in at a time, of all that give this *name*; in order."""
        import asyncio

        lock, others = self._turns.get(name) or (asyncio.Lock(), 0)
        if others and not patient:
            raise VaultUnavailable("another flow of this agent is at it")
        self._turns[name] = lock, others + 1
        try:
            async with lock:
                yield
        finally:
            lock, others = self._turns.pop(name)
            if others > 1:
                self._turns[name] = lock, others - 1


class Blocking:
    """Alone in its thread: whatever blocks asks `left` first, so that the nearest end of all contexts holds."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._ends: list[float] = []

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """A context that ends with TimeoutError once *seconds* have passed in it."""
        end = self._clock.monotonic() + seconds
        self._ends.append(min(end, self._ends[-1]) if self._ends else end)
        try:
            yield
        finally:
            self._ends.pop()

    def left(self) -> float:
        """Return the seconds until the nearest end. Raises TimeoutError: it has passed."""
        if not self._ends:
            return float("inf")
        left = self._ends[-1] - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    async def pause(self, seconds: float) -> None:
        """Return after *seconds*. Raises TimeoutError: an end comes first."""
        left = self.left()
        time.sleep(min(seconds, left))  # noqa: ASYNC251 - alone in its thread, by its very purpose
        if left <= seconds:
            raise TimeoutError

    @asynccontextmanager
    async def turn(self, name: str, *, patient: bool = True) -> AsyncIterator[None]:
        """Nobody else is here."""
        yield


def run_blocking(work: Coroutine[Any, Any, _T]) -> _T:
    """Run *work*, which waits by `Blocking` only, to its end and return its result; no event loop is needed."""
    try:
        work.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    work.close()
    raise RuntimeError("a flow that should block has suspended")
