"""What one relay may keep in its own memory: who has a link here, and the token buckets.

Both single-node stores use these; a store that several relays share brings its own.
"""

from aimessage.clock import Clock
from aimessage.types import Username

__all__ = ["LocalBudgets", "LocalPresence"]

_BUCKETS_BEFORE_SWEEP = 10_000


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


class LocalBudgets:
    """Token buckets by name; `ports.Budgets` for a store with one relay.

    A bucket is kept as the moment at which it will be full again, so that a full one is nothing worth keeping.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}

    async def take(self, bucket: str, *, rate: float, burst: float, cost: float = 1.0) -> float:
        """Take *cost* tokens; return 0.0 if they were there, else the seconds until they will be."""
        now = self._clock.monotonic()
        full_at = max(self._full_at.get(bucket, now), now)
        wait = full_at + cost / rate - now - burst / rate
        if wait > 1e-9:  # a rounding error is no reason to refuse
            return wait
        if len(self._full_at) >= _BUCKETS_BEFORE_SWEEP:
            self._full_at = {name: when for name, when in self._full_at.items() if when > now}
        self._full_at[bucket] = full_at + cost / rate
        return 0.0
