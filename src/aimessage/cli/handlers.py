"""Messages and what deals with them: so many at once, each sender's in order, tried again, and given up in the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from aimessage.cli.render import Screen

if TYPE_CHECKING:
    from aimessage.client import Agent, Message

__all__ = ["Handler", "Handlers"]

Handler = Callable[["Message"], Awaitable[str | None]]
"""Deals with one message; returns None, or what went wrong in one phrase."""
_IN_HAND = 64
_LONGEST = timedelta(hours=1)


class Handlers:
    """Belongs to one `listen`. A failure is counted in the vault, so a restart does not begin to count anew."""

    def __init__(
        self, me: "Agent", handler: Handler, jobs: int, most_tries: int, delay: timedelta, screen: Screen
    ) -> None:
        self._me, self._handler, self._screen = me, handler, screen
        self._most_tries, self._delay = most_tries, delay
        self._jobs = asyncio.Semaphore(jobs)
        self._room = asyncio.Semaphore(_IN_HAND)
        self._lanes: dict[str, list[Message]] = {}
        self._ending = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work on what `take` is given; in the end finish what runs, and start nothing again."""
        try:
            async with self._tasks:
                yield
                self._ending.set()
        except BaseExceptionGroup as several:
            raise _first(several) from None

    async def take(self, message: "Message") -> None:
        """Accept one message; waits while too many are in hand."""
        if message.type != "message":
            return
        if "loop" in message.flags:
            self._me.shown([message])
            self._screen.notice(f"message {message.id} is part of a loop and was given to no handler")
            return
        await self._room.acquire()
        lane = self._lanes.setdefault(message.from_, [])
        lane.append(message)
        if len(lane) == 1:
            self._tasks.create_task(self._work_off(message.from_))

    async def _work_off(self, sender: str) -> None:
        lane, goes_on = self._lanes[sender], True
        while lane:
            # Behind one that is left for the next listen, all are: they must not overtake it.
            goes_on = goes_on and await self._is_over(lane[0])
            lane.pop(0)
            self._room.release()
        del self._lanes[sender]

    async def _is_over(self, message: "Message") -> bool:
        """Work on one message until it is dealt with or given up; return False if it is left for the next listen."""
        delay = self._delay
        while True:
            async with self._jobs:
                trouble = await self._handler(message)
            if trouble is None:
                await message.ack()
                return True
            tries = self._me.note_failure(message, trouble, most_tries=self._most_tries)
            if tries >= self._most_tries:
                self._screen.notice(
                    f"message {message.id} was given up after {tries} tries: {trouble}; aimessage retry {message.id}"
                )
                return True
            if await self._ends_within(delay):
                self._screen.notice(
                    f"message {message.id} is not acknowledged, and the next listen gets it again: {trouble}"
                )
                return False
            delay = min(delay * 4, _LONGEST)

    async def _ends_within(self, delay: timedelta) -> bool:
        try:
            async with asyncio.timeout(delay.total_seconds()):
                await self._ending.wait()
        except TimeoutError:
            return False
        return True


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
