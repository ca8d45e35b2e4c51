"""Who is connected to this relay, and which link receives for whom."""

from collections.abc import Collection, Sequence
from typing import Protocol

from aimessage.types import Username
from aimessage.wire.frames import RelayFrame

__all__ = ["Hub", "Neighbour"]


_SUPERSEDED = "another machine of this identity receives now"


class Neighbour(Protocol):
    """What one link lets the others do to it."""

    def push(self, frames: Sequence[RelayFrame]) -> None:
        """Send *frames* now, unless the link is gone."""
        ...

    def wake(self) -> None:
        """There is new mail for this link's owner."""
        ...

    def say_bye(self, code: str, message: str, retry_after: float = 0.0) -> None:
        """Close the link with a reason; its agent may come back after *retry_after* seconds."""
        ...


class Hub:
    """The links that are logged in here. Presence across relays is the store's."""

    def __init__(self) -> None:
        self._links: dict[Username, set[Neighbour]] = {}
        self._receivers: dict[Username, Neighbour] = {}
        self._subscriptions: dict[Username, int] = {}

    def join(self, owner: Username, link: Neighbour) -> None:
        """*link* has logged in."""
        self._links.setdefault(owner, set()).add(link)

    def leave(self, owner: Username, link: Neighbour) -> None:
        """*link* is gone."""
        links = self._links.get(owner, set())
        links.discard(link)
        if not links:
            self._links.pop(owner, None)
        if self._receivers.get(owner) is link:
            del self._receivers[owner], self._subscriptions[owner]

    def receive(self, owner: Username, link: Neighbour, subscription: int) -> None:
        """*link* has the newest subscription; an older one is told so and closed."""
        older = self._receivers.get(owner)
        self._receivers[owner], self._subscriptions[owner] = link, subscription
        if older is not None and older is not link:
            older.say_bye("superseded", _SUPERSEDED)

    def subscription(self, owner: Username) -> int | None:
        """Return the subscription of the link that receives for *owner* here, if one does."""
        return self._subscriptions.get(owner)

    def supersede(self, owner: Username, subscription: int) -> None:
        """*subscription* is the newest, on whichever relay; an older one here is told so and closed."""
        if self._subscriptions.get(owner, subscription) < subscription:
            self._receivers[owner].say_bye("superseded", _SUPERSEDED)

    def receives(self, owner: Username, link: Neighbour) -> bool:
        """Return whether *link* is the one that receives for *owner* here."""
        return self._receivers.get(owner) is link

    def expel(self, owner: Username, code: str, message: str) -> None:
        """Close every link of *owner* with a reason."""
        for link in list(self._links.get(owner, ())):
            link.say_bye(code, message)

    def wake(self, owners: Collection[Username]) -> None:
        """New mail is on disk for *owners*."""
        for owner in owners:
            receiver = self._receivers.get(owner)
            if receiver is not None:
                receiver.wake()

    def push(self, owner: Username, frames: Sequence[RelayFrame]) -> None:
        """Send *frames* on every link of *owner*."""
        for link in list(self._links.get(owner, ())):
            link.push(frames)
