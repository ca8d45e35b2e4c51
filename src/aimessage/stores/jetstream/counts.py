"""What each mailbox holds, counted from its subjects: by these counts a relay judges the quotas.

Another relay's changes are not seen here until the counts are taken anew: at the latest after `FRESH_SECONDS`, and
always before a posting is refused. So nothing is refused wrongly, and a mailbox can go over its quota by no more than
the other relays have accepted for it within that time.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from aimessage.stores.jetstream.bus import Bus
from aimessage.stores.jetstream.layout import Place, mailbox
from aimessage.stores.ledger import CONTROL, Ledger
from aimessage.types import Position, Username

__all__ = ["FRESH_SECONDS", "Counts", "Counted"]

FRESH_SECONDS = 10.0
_ENTRIES = 400_000  # in all mailboxes that are counted here; those longest unused go first
_BOUND_EVERY = 64


@dataclass(slots=True)
class Counted:
    """One mailbox, counted at the moment *taken* of the monotonic clock."""

    taken: float
    held: dict[str, Place] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    def add(self, place: Place) -> None:
        """Count an entry in, once."""
        if place.key not in self.held:
            self.held[place.key] = place
            self.ledger.add(_mark(place), place.sender, place.mail_class, place.size)

    def remove(self, place: Place) -> None:
        """Count an entry out, once."""
        if (held := self.held.pop(place.key, None)) is not None:
            self.ledger.remove(_mark(held), held.sender, held.mail_class, held.size)


class Counts:
    """The mailboxes counted lately, by owner."""

    def __init__(self, bus: Bus, partitions: int) -> None:
        self._bus = bus
        self._partitions = partitions
        self._counted: OrderedDict[Username, Counted] = OrderedDict()
        self._until_bound = _BOUND_EVERY

    def known(self, owner: Username) -> Counted | None:
        """Return the counts of a mailbox if they were taken."""
        return self._counted.get(owner)

    def forget(self, owner: Username) -> None:
        """Count this mailbox again when it is next asked for."""
        self._counted.pop(owner, None)

    async def of(self, owner: Username, now: float, *, fresh_seconds: float = FRESH_SECONDS) -> Counted:
        """Return counts taken no longer than *fresh_seconds* before *now*. Raises RelayUnavailable."""
        counted = self._counted.get(owner)
        if counted is None or now - counted.taken >= fresh_seconds:
            counted = Counted(now)
            for place in await self.places(owner):
                counted.add(place)
            self._counted[owner] = counted
            self._bound(owner)
        self._counted.move_to_end(owner)
        return counted

    async def places(self, owner: Username) -> list[Place]:
        """Return every entry of a mailbox, in any order. Raises RelayUnavailable."""
        stream, start = mailbox(owner, self._partitions)
        return [Place.of(subject) for subject in await self._bus.subjects(stream, f"{start}.>")]

    def _bound(self, newest: Username) -> None:
        self._until_bound -= 1
        if self._until_bound > 0:  # the counts themselves are counted now and then only
            return
        self._until_bound = _BOUND_EVERY
        total = sum(len(counted.held) + 1 for counted in self._counted.values())
        while total > _ENTRIES and next(iter(self._counted)) != newest:
            _, gone = self._counted.popitem(last=False)
            total -= len(gone.held) + 1


def _mark(place: Place) -> Position:
    # A list of subjects tells no positions: any number does that no other control mail of the mailbox has.
    return Position(int.from_bytes(place.key.encode(), "big") if place.mail_class == CONTROL else 0)
