"""How a flow waits: on an event loop beside others, or by blocking its thread, alone. The flows do not know which."""

import time
from collections.abc import AsyncIterator, Coroutine
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from aimessage.clock import Clock, SystemClock
from aimessage.errors import VaultUnavailable

if TYPE_CHECKING:
    import asyncio

__all__ = ["Blocking", "OnLoop", "Waiting", "run_blocking"]

_T = TypeVar("_T")
_Queue: TypeAlias = "list[tuple[bytes, asyncio.Future[bool]]]"


class Waiting(Protocol):
    """What a flow that waits needs. Nothing else in it may suspend."""

    def within(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """A context that ends with TimeoutError once *seconds* have passed in it."""
        ...

    async def pause(self, seconds: float) -> None:
        """Return after *seconds*."""
        ...

    def turn(self, name: str, *, patient: bool = True, key: bytes = b"") -> AbstractAsyncContextManager[bool]:
        """A context that only one flow of this process is in at a time, of all that give this *name*; in order.

        It tells whether that is the caller, or somebody has spared its turn, by its *key*.
        Raises VaultUnavailable: another is in it, and the caller is not *patient*.
        """
        ...

    def spare(self, name: str, keys: AbstractSet[bytes]) -> None:
        """Those who wait for their turn under one of these *keys* need not any more."""
        ...


class OnLoop:
    """Beside other tasks of the running event loop; asyncio is imported by whoever waits so, not before."""

    def __init__(self) -> None:
        self._turns: dict[str, _Queue] = {}  # those that somebody has, and who waits for them

    def within(self, seconds: float) -> AbstractAsyncContextManager[object]:
        """A context that ends with TimeoutError once *seconds* have passed in it."""
        import asyncio

        return asyncio.timeout(seconds)

    async def pause(self, seconds: float) -> None:
        """Return after *seconds*."""
        import asyncio

        await asyncio.sleep(seconds)

    def turn(self, name: str, *, patient: bool = True, key: bytes = b"") -> AbstractAsyncContextManager[bool]:
        """A context that only one flow of this process is in at a time, of all that give this *name*; in order."""
        if name in self._turns and not patient:
            raise VaultUnavailable("another flow of this agent is at it")
        return _Turn(self._turns, name, key)

    def spare(self, name: str, keys: AbstractSet[bytes]) -> None:
        """Those who wait for their turn under one of these *keys* need not any more."""
        queue = self._turns.get(name, [])
        for key, waiter in queue:
            if key in keys and not waiter.done():
                waiter.set_result(False)
        queue[:] = [(key, waiter) for key, waiter in queue if not waiter.done()]


class _Turn:
    """One flow's turn: who leaves hands it to the next."""

    __slots__ = ("_is_mine", "_key", "_name", "_turns")

    def __init__(self, turns: dict[str, _Queue], name: str, key: bytes) -> None:
        self._turns = turns
        self._name = name
        self._key = key
        self._is_mine = False

    async def __aenter__(self) -> bool:
        queue = self._turns.get(self._name)
        if queue is None:
            self._turns[self._name] = []
            self._is_mine = True
            return True
        import asyncio

        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queue.append((self._key, waiter))
        try:
            self._is_mine = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self._hand_on()  # it came in the very moment in which nobody wanted it any more
            raise
        return self._is_mine

    async def __aexit__(self, *_: object) -> None:
        if self._is_mine:
            self._hand_on()

    def _hand_on(self) -> None:
        queue = self._turns[self._name]
        while queue:
            _, waiter = queue.pop(0)
            if not waiter.done():
                waiter.set_result(True)
                return
        del self._turns[self._name]


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
    async def turn(self, name: str, *, patient: bool = True, key: bytes = b"") -> AsyncIterator[bool]:
        """Nobody else is here."""
        yield True

    def spare(self, name: str, keys: AbstractSet[bytes]) -> None:
        """Nobody waits."""


def run_blocking(work: Coroutine[Any, Any, _T]) -> _T:
    """Run *work*, which waits by `Blocking` only, to its end and return its result; no event loop is needed."""
    try:
        work.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    work.close()
    raise RuntimeError("a flow that should block has suspended")
