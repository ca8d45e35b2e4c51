"""One thread of an open agent runs its event loop; whichever thread calls, the call is done there and waited for here.

What is interrupted (Ctrl-C) is cancelled in order, and has ended before the interruption goes on.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aimessage.errors import BadValue

__all__ = ["Worker", "refuse_in_a_loop"]

T = TypeVar("T")


class Worker:
    """One thread with an event loop; any other thread may have work done there, and waits for it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aimessage", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._is_closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what *work* returns. Raises what it raises; BadValue: the caller is an event loop, or all is closed.

        Interrupted, *work* is cancelled, and has ended when this raises.
        """
        done, tasks = threading.Event(), list[asyncio.Task[T]]()

        def start() -> None:
            task = self._loop.create_task(work)
            task.add_done_callback(lambda _: done.set())
            tasks.append(task)

        try:
            refuse_in_a_loop()
            with self._lock:  # after `close` nothing is begun
                if self._is_closed:
                    raise _closed()
                self._loop.call_soon_threadsafe(start)
        except BadValue:
            work.close()
            raise
        try:
            done.wait()
        except BaseException:
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108 - read behind `start`, which makes it
            done.wait()
            raise
        if tasks[0].cancelled():
            raise _closed()
        return tasks[0].result()

    def call(self, function: Callable[[], T]) -> T:
        """Return what *function* returns on the loop. Raises what `run` does."""

        async def work() -> T:
            return function()

        return self.run(work())

    def close(self) -> None:
        """Cancel what is still at work there, end the thread and free the loop; nothing if that is done already."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def refuse_in_a_loop() -> None:
    """Raise BadValue if the calling thread runs an event loop: a blocking call would stop it."""
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise BadValue(
            "a blocking call inside an event loop would stop the loop",
            hint="there, use: async with aimessage.connect(agent=NAME) as me",
        )


def _closed() -> BadValue:
    return BadValue("this agent is closed", hint="call it inside: with aimessage.sync.connect(agent=NAME) as me")
