"""One subscription on one link: mail is committed and then acknowledged, and what we owe others is sent meanwhile."""

import asyncio
from collections.abc import Callable, Sequence

from aimessage.client import consumers, control, fates, inbox, state
from aimessage.client.account import Here
from aimessage.client.changes import Changes, Watch
from aimessage.client.connection import Connected
from aimessage.client.copies import RelayCopies, acknowledgements
from aimessage.client.handover import Handover
from aimessage.client.joining import subscribe
from aimessage.client.prekeys import PAIRS_LOW, is_stale, renew_bundle, stock_pairs
from aimessage.types import MessageId
from aimessage.wire.frames import CaughtUp, Deliver, PairsLow
from aimessage.wire.limits import PAIRS_PER_STOCK

__all__ = ["Subscription"]

_BATCH = 200
_BATCHING_SECONDS = 0.03
_UNHURRIED_SECONDS = 0.2  # for receipts that nobody waits for: most go with an answer before
_UPKEEP_SECONDS = 5.0
_HOUSEKEEPING_SECONDS = 3600.0


class Subscription:
    """Built for one link."""

    def __init__(self, here: Here, connected: Connected, changes: Changes, handover: Handover) -> None:
        self._here = here
        self._handover = handover
        self._connected = connected
        self._changes = changes
        self._copies = RelayCopies(here)
        self._pairs_left = PAIRS_PER_STOCK
        self._unhurried: frozenset[MessageId] = frozenset()
        self._unhurried_until = 0.0
        self.is_published = False

    async def begin(self, *, publish: bool) -> bool:
        """Subscribe, having become the active machine if *publish*; return False if another machine is it.

        Raises GenerationStale: this vault is a clone or was rolled back; Superseded.
        """
        is_ours = await subscribe(self._here, self._connected, publish=publish)
        self.is_published = publish
        return is_ours

    async def take_in(self, until_handled: Callable[[], bool], on_caught_up: Callable[[], None]) -> None:
        """Take in what comes, until the link is lost."""
        pushes = self._connected.pushes
        while True:
            frames = await pushes.take(_BATCH)
            deliveries = [frame for frame in frames if isinstance(frame, Deliver)]
            if deliveries:
                done = inbox.take_in(self._here, deliveries, self._handover, until_handled=until_handled())
                self._changes.tell()
                try:
                    await asyncio.sleep(0)  # whoever waits for it goes first
                finally:  # and may want no more
                    self._acknowledge(self._copies.over(deliveries, done))
            for frame in frames:
                if isinstance(frame, PairsLow):
                    self._pairs_left = min(max(frame.left, 0), PAIRS_PER_STOCK)
            if not deliveries:
                self._changes.tell()
            if any(isinstance(frame, CaughtUp) for frame in frames):
                on_caught_up()

    def _acknowledge(self, deliveries: Sequence[Deliver]) -> None:
        for frame in acknowledgements(deliveries):
            self._connected.link.tell(frame)

    async def keep_up(self) -> None:
        """Send what we owe: receipts, requests, what others left in the outbox, our state, fresh prekeys."""
        watch = Watch(self._changes)
        await self._pay(everything=True)
        loop = asyncio.get_running_loop()
        began = looked_at = loop.time()
        while True:
            if loop.time() - looked_at > _HOUSEKEEPING_SECONDS:
                looked_at = loop.time()
                fates.expire(self._here, self._connected.relay_ms + int((looked_at - began) * 1000))
            due = self._unhurried_until - loop.time() if self._unhurried else _UPKEEP_SECONDS
            await watch.next(max(0.0, due))
            await asyncio.sleep(_BATCHING_SECONDS)  # one receipt for many messages
            await self._pay(everything=False)

    async def _pay(self, *, everything: bool) -> None:
        here, link = self._here, self._connected.link
        self._acknowledge(self._copies.settled())
        consumers.release_what_is_due(here)
        if everything or self._is_time(control.debts(here)):
            await control.flush(here, link)
        if self.is_published:
            await state.store_state(here, self._connected)
            if is_stale(here):
                await renew_bundle(here, link)
            if self._pairs_left < PAIRS_LOW:
                wanted, self._pairs_left = PAIRS_PER_STOCK - self._pairs_left, PAIRS_PER_STOCK
                await stock_pairs(here, link, wanted)

    def _is_time(self, debts: control.Debts) -> bool:
        """Return whether to pay now: receipts that nobody waits for may go with an answer, for a moment."""
        now = asyncio.get_running_loop().time()
        if debts.soon or (now >= self._unhurried_until and not debts.receipts.isdisjoint(self._unhurried)):
            self._unhurried = frozenset()
            return True
        if now >= self._unhurried_until or not self._unhurried:
            self._unhurried, self._unhurried_until = debts.receipts, now + _UNHURRIED_SECONDS
        return False
