"""A relay that stands still: it changes nothing in its store while a command copies it, and nothing once that moved.

Mail still goes out and is acknowledged: an acknowledgement that the copy lacks makes a message come again at the new
store, where its recipient knows it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

from aimessage.errors import ConfigInvalid, RelayUnavailable

__all__ = ["Stillness"]

_AGAIN = timedelta(seconds=5)


class Stillness:
    """One a relay."""

    def __init__(self) -> None:
        self._askers = 0
        self._at_work = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._successor = ""

    @property
    def reason(self) -> str:
        """Why nothing is changed now; "" if everything may be."""
        if self._successor:
            return f"this relay's store has moved to {self._successor}"
        return "this relay's store is being moved" if self._askers else ""

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Within this, the store is changed; whoever wants stillness waits for its end. Raises RelayUnavailable."""
        if self.reason:
            raise RelayUnavailable(self.reason, retry_after=_AGAIN)
        self._at_work += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._quiet.set()

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Begin nothing more until the context ends; it begins when what was under way is done."""
        self._askers += 1
        try:
            await self._quiet.wait()
            yield
        finally:
            self._askers -= 1

    def require(self) -> None:
        """Return nothing if somebody keeps the relay still. Raises ConfigInvalid."""
        if not self._askers:
            raise ConfigInvalid("a store is moved while it stands still", hint="use aimessage-server migrate")

    def for_ever(self, successor: str) -> None:
        """The store has moved to *successor*, and says so itself from now on."""
        self._successor = successor
