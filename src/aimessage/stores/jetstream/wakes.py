"""Hints among the relays over core NATS: there is something new for somebody who has a link to you."""

import asyncio
from typing import TYPE_CHECKING

import nats.errors

from aimessage.stores.jetstream.bus import Bus
from aimessage.stores.ports import Changed
from aimessage.types import Username

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["Wakes"]

_START = "aimessage-wake."
_MAIL = b"m"
_SUBSCRIPTION = b"s"
_SWEEP_SECONDS = 30.0
_SWEEP_SLICES = 30


class Wakes:
    """Tells of changes made here, and hears of those for whoever is followed. A hint may be lost: see `run`."""

    def __init__(self, bus: Bus, node: str) -> None:
        self._bus = bus
        self._node = node.encode()
        self._followed: dict[Username, Subscription | None] = {}
        self._links: dict[Username, int] = {}
        self._outgoing: set[tuple[Username, bytes]] = set()
        self._something = asyncio.Event()
        self.hear_mail: Changed = lambda owners: None
        self.hear_subscriptions: Changed = lambda owners: None

    def tell_mail(self, owners: set[Username]) -> None:
        """There is new mail for *owners*."""
        self._tell(owners, _MAIL)

    def tell_subscriptions(self, owners: set[Username]) -> None:
        """There is a new subscription of *owners*."""
        self._tell(owners, _SUBSCRIPTION)

    def _tell(self, owners: set[Username], what: bytes) -> None:
        if owners:
            self._outgoing |= {(owner, what) for owner in owners}
            self._something.set()

    async def follow(self, owner: Username) -> None:
        """Hear of what is new for *owner* from now on; as often as this is called, `unfollow` is to be."""
        self._links[owner] = self._links.get(owner, 0) + 1
        if owner in self._followed:
            return
        self._followed[owner] = None
        try:
            self._followed[owner] = await self._bus.client.subscribe(_START + owner, cb=self._heard)
        except (nats.errors.Error, OSError):  # then only the sweep tells
            return

    async def unfollow(self, owner: Username) -> None:
        """Undo one `follow`."""
        self._links[owner] = self._links.get(owner, 0) - 1
        if self._links[owner] > 0:
            return
        del self._links[owner]
        subscription = self._followed.pop(owner, None)
        if subscription is not None:
            try:
                await subscription.unsubscribe()
            except (nats.errors.Error, OSError):
                return

    async def run(self) -> None:
        """Send what is told, until cancelled."""
        while True:
            await self._something.wait()
            self._something.clear()
            outgoing, self._outgoing = self._outgoing, set()
            try:
                for owner, what in outgoing:
                    await self._bus.client.publish(_START + owner, what + self._node)
            except (nats.errors.Error, OSError):
                await asyncio.sleep(1.0)  # the sweep makes up for it

    async def sweep(self) -> None:
        """Every 30 seconds tell everybody who is followed, a few at a time, until cancelled: hints get lost."""
        while True:
            followed = list(self._followed)
            slices = [followed[at::_SWEEP_SLICES] for at in range(_SWEEP_SLICES)]
            for part in slices:
                await asyncio.sleep(_SWEEP_SECONDS / _SWEEP_SLICES)
                self.hear_mail(part)
                self.hear_subscriptions(part)

    async def _heard(self, message: "Msg") -> None:
        what, node = message.data[:1], message.data[1:]
        if node != self._node:
            hear = self.hear_subscriptions if what == _SUBSCRIPTION else self.hear_mail
            hear([Username(message.subject.removeprefix(_START))])
