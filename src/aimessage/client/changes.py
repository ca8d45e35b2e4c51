"""How the waiters of one agent learn that its vault has changed, whichever process changed it."""

import asyncio
from contextlib import suppress

from aimessage.client.vault import Vault

__all__ = ["Changes", "Watch"]

_POLL_SECONDS = 0.05


class Changes:
    """One an Agent: what its own tasks change is told at once, what other processes change within 50 ms."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._event = asyncio.Event()
        self._count = 0

    def tell(self) -> None:
        """Something has changed: wake everybody who watches."""
        self._count += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    def state(self) -> tuple[int, int]:
        """Return what differs after each change."""
        return self._vault.version(), self._count

    async def pause(self, seconds: float) -> None:
        """Wait until a change of our own, at most *seconds*."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()


class Watch:
    """One waiter's view: whatever changes after its construction or its last look is seen by the next one."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._seen = changes.state()

    def look(self) -> None:
        """Whoever looks now has seen all changes up to here."""
        self._seen = self._changes.state()

    async def next(self, seconds: float) -> None:
        """Return after a change, or after *seconds* without one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (state := self._changes.state()) == self._seen:
            left = until - loop.time()
            if left <= 0:
                return
            await self._changes.pause(min(left, _POLL_SECONDS))
        self._seen = state
