"""The agent of one command that looks, asks and ends: without an event loop, whose import takes longer than its work.

It does what `Agent` does, by the same flows, as far as nothing has to be waited for beside something else.
"""

from collections.abc import Callable
from contextlib import aclosing, suppress
from datetime import timedelta

from aimessage.client import consumers, reading
from aimessage.client.account import Here
from aimessage.client.blocking import BlockingReach
from aimessage.client.config import Settings
from aimessage.client.consumers import Filter
from aimessage.client.fetching import Fetching
from aimessage.client.local import LocalAgent
from aimessage.client.message import Message
from aimessage.client.needs import Need
from aimessage.client.oneshot import open_blocking
from aimessage.client.presence import UserPresence, list_users
from aimessage.client.reading import Budget, InboxPage, Query
from aimessage.client.sender import Sender
from aimessage.errors import AimessageError, RelayUnreachable

__all__ = ["BriefAgent", "open_brief"]

_PATIENCE = timedelta(seconds=30)


class BriefAgent(LocalAgent):
    """Its coroutines never suspend: `waiting.run_blocking` runs them."""

    def __init__(self, here: Here, reach: BlockingReach, notice: Callable[[str], None]) -> None:
        super().__init__(here)
        self._reach = reach
        self._intake = Fetching(here, reach, notice)

    def close(self) -> None:
        """Close the link and the vault."""
        self._reach.close()
        super().close()

    @property
    def trouble(self) -> AimessageError | None:
        """What stood between us and the relay; None if nothing did."""
        return self._intake.trouble

    async def users(self, *, everyone: bool = False) -> list[UserPresence]:
        """Return who is online, or everybody who is registered, by name. Raises what stands before the relay."""
        try:
            async with self._here.waiting.within(_PATIENCE.total_seconds()):
                return await list_users(await self._reach.link(), everyone=everyone)
        except TimeoutError:
            raise RelayUnreachable("the relay did not answer in time", hint="aimessage doctor") from None

    async def inbox(  # noqa: PLR0913 - a query
        self,
        *,
        limit: int = 20,
        max_chars: int = reading.PAGE_CHARS,
        cursor: str | None = None,
        peek: bool = False,
        sender: str | None = None,
        thread: str | None = None,
        state: str | None = None,
        cost: Callable[[Message], int] = reading.said_chars,
        keep: bool = False,
    ) -> InboxPage:
        """Take in what the relay holds and return a page of it, as `Agent.inbox` does."""
        query, budget = Query(limit, cursor, sender, thread, state), Budget(max_chars, cost)
        page = await reading.next_page(self._here, self._intake, query, budget, peek=peek)
        if not (peek or keep) and query.is_unread:
            self.shown(page.messages)
        return page

    async def wait(
        self,
        *,
        sender: str | None = None,
        thread: str | None = None,
        limit: int = 100,
        timeout: timedelta,  # noqa: ASYNC109 - a wait is a time-out
        keep: bool = False,
    ) -> list[Message]:
        """Return everything that waits, up to *limit*, as soon as there is something, as `Agent.wait` does."""
        wanted, found = Filter(sender, thread), list[tuple[int, Message]]()
        try:
            async with aclosing(self._intake.arrivals(timeout.total_seconds())) as arrivals:
                async for _ in arrivals:
                    found = consumers.claim(self._here, wanted, limit)
                    if found:
                        break
        except BaseException:  # interrupted before anybody could be shown them
            consumers.give_back(self._here, [row for row, _ in found], seen=False)
            raise
        if not found and self.trouble is not None:
            raise self.trouble
        messages = [message for _, message in found]
        if not keep:
            self.shown(messages)
        return messages

    async def refresh(self, *, timeout: timedelta = timedelta(seconds=5)) -> bool:  # noqa: ASYNC109 - best effort
        """Take in what waits at the relay, if this machine is the active one; return whether that was possible."""
        with suppress(AimessageError):
            await self._intake.settle(Need.WATCH, timeout)
        return self.trouble is None

    async def flush(self) -> None:
        """Send, as far as that is quick, the receipts that are owed and what earlier commands left in the outbox."""
        await Sender(self._here, self._reach).pay()

    async def finish(self) -> None:
        """Before a command ends that has spoken with the relay: what it owes others by now is sent."""
        if self._reach.was_used:
            await self.flush()


def open_brief(settings: Settings) -> BriefAgent | None:
    """Open the agent of *settings* for one command; None: it is not on this machine yet, or its way needs the loop's.

    Raises what `account.open_here` does.
    """
    if not (settings.directory / "profile.json").exists():
        return None
    opened = open_blocking(settings)
    if opened is None:
        return None
    here, reach = opened
    return BriefAgent(here, reach, here.profile.dialling.notice)
