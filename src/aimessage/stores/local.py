"""What one relay may keep in its own memory: who has a link here, and what has been counted.

Both single-node stores use these; a store that several relays share brings its own.
"""

from collections import OrderedDict

from aimessage.clock import Clock
from aimessage.stores.windows import Events, count_one, within
from aimessage.types import Username

__all__ = ["KEYS", "LocalBudgets", "LocalPresence"]

KEYS = 20_000
"""Keys that are remembered: addresses and names, each for one limit."""


class LocalPresence:
    """Counts links by owner; `ports.Presence` for a store with one relay."""

    def __init__(self) -> None:
        self._links: dict[Username, int] = {}

    async def arrive(self, owner: Username) -> None:
        """One more link of *owner* is open here."""
        self._links[owner] = self._links.get(owner, 0) + 1

    async def leave(self, owner: Username) -> None:
        """One link fewer."""
        left = self._links.get(owner, 0) - 1
        if left > 0:
            self._links[owner] = left
        else:
            self._links.pop(owner, None)

    async def online(self) -> frozenset[Username]:
        """Return everybody with a link."""
        return frozenset(self._links)

    async def relays(self) -> int:
        """There is one."""
        return 1


class LocalBudgets:
    """`ports.Budgets` for a store with one relay. Of too many keys, the longest unseen is forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: OrderedDict[str, Events] = OrderedDict()

    async def take(self, key: str, *, limit: int, seconds: float) -> float:
        """Count one event; return 0.0 if it is within the limit, else the seconds until one would be."""
        if not limit:
            return 0.0
        now = self._clock.monotonic()
        events = self._keys.setdefault(key, [])
        self._keys.move_to_end(key)
        if wait := within(events, now, limit=limit, seconds=seconds):
            return wait
        count_one(events, now, seconds=seconds)
        if len(self._keys) > KEYS:
            self._keys.popitem(last=False)
        return 0.0

    async def wait(self, key: str, *, limit: int, seconds: float) -> float:
        """Return what `take` would; count nothing."""
        events = self._keys.get(key)
        return within(events, self._clock.monotonic(), limit=limit, seconds=seconds) if limit and events else 0.0
