"""What all work on the mailboxes shares: the bus, the counts, what this relay remembers, and how one entry goes."""

import asyncio
from collections.abc import Callable

from aimessage.clock import Clock
from aimessage.stores.jetstream.bus import Bus
from aimessage.stores.jetstream.counts import Counts
from aimessage.stores.jetstream.entries import Remembered
from aimessage.stores.jetstream.layout import Place, mailbox
from aimessage.stores.ports import Quotas
from aimessage.types import Username

__all__ = ["Ground"]

_AT_ONCE = 64


class Ground:
    """One for each store; *woken* is told whose mailbox has something new."""

    def __init__(
        self, bus: Bus, quotas: Quotas, partitions: int, clock: Clock, woken: Callable[[set[Username]], None]
    ) -> None:
        self.bus = bus
        self.quotas = quotas
        self.partitions = partitions
        self.clock = clock
        self.woken = woken
        self.counts = Counts(bus, partitions)
        self.seen = Remembered()
        self.slots = asyncio.Semaphore(_AT_ONCE)

    def mailbox(self, owner: Username) -> tuple[str, str]:
        """Return the stream of a mailbox and the start of its subjects."""
        return mailbox(owner, self.partitions)

    async def remove(self, stream: str, position: int, place: Place) -> bool:
        """Delete one entry; return whether it was there. Raises RelayUnavailable."""
        async with self.slots:
            deleted = await self.bus.delete(stream, position)
        self.seen.drop(stream, position)
        if (counted := self.counts.known(place.owner)) is not None:
            counted.remove(place)
        return deleted
