"""What the relays on one store share and nobody needs on disk: who is there, and the token buckets."""

import asyncio
import json
from collections import Counter

from aimessage.clock import Clock, milliseconds
from aimessage.errors import RelayUnavailable, StoreDamaged
from aimessage.octets import u64
from aimessage.stores.jetstream.accounts import contended
from aimessage.stores.jetstream.bus import Bus
from aimessage.stores.jetstream.layout import BUDGETS, HERE
from aimessage.stores.jetstream.records import Change, Records
from aimessage.types import Username

__all__ = ["JetStreamBudgets", "JetStreamPresence"]

_TRIES = 100
_REFRESH_SECONDS = 15.0  # a relay that has not said for 60 s who is with it is taken for gone
_SETTLE_SECONDS = 0.2  # arrivals within this time are told together
_OTHERS_SECONDS = 1.0
_NAMES_PER_RECORD = 20_000


class JetStreamPresence:
    """`ports.Presence`: each relay tells in a record of its own who has a link there; it ends by itself."""

    def __init__(self, bus: Bus, node: str, clock: Clock) -> None:
        self._records = Records(bus, HERE)
        self._node = node
        self._clock = clock
        self._links: Counter[Username] = Counter()
        self._changed = asyncio.Event()
        self._told = 0
        self._others: frozenset[Username] = frozenset()
        self._heard_at: float | None = None

    async def arrive(self, owner: Username) -> None:
        """One more link of *owner* is open here."""
        self._links[owner] += 1
        self._changed.set()

    async def leave(self, owner: Username) -> None:
        """One link fewer."""
        self._links[owner] -= 1
        if self._links[owner] <= 0:
            del self._links[owner]
        self._changed.set()

    async def online(self) -> frozenset[Username]:
        """Return everybody with a link, as other relays have told it; theirs may be two seconds old."""
        now = self._clock.monotonic()
        if self._heard_at is None or now - self._heard_at >= _OTHERS_SECONDS:
            self._others = await self._hear()
            self._heard_at = now
        return self._others | self._links.keys()

    def here(self) -> list[Username]:
        """Return everybody with a link to this relay."""
        return list(self._links)

    async def run(self) -> None:
        """Tell the others who is here, when that has changed and now and then, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_REFRESH_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(_SETTLE_SECONDS)
            self._changed.clear()
            try:
                await self.tell()
            except RelayUnavailable:
                self._changed.set()  # a hint: again, when the engine is back
                await asyncio.sleep(1.0)

    async def tell(self) -> None:
        """Tell the others who is here. Raises RelayUnavailable."""
        names = sorted(self._links)
        parts = [names[at : at + _NAMES_PER_RECORD] for at in range(0, len(names), _NAMES_PER_RECORD)]
        for number in range(max(len(parts), self._told, 1)):
            part = parts[number] if number < len(parts) else []
            await self._records.write(self._subject(number), json.dumps(part).encode())
        self._told = len(parts)

    def _subject(self, number: int) -> str:
        return f"aimessage.here.{self._node}.{number}"

    async def _hear(self) -> frozenset[Username]:
        subjects = await self._records.names("aimessage.here.>")
        ours = f"aimessage.here.{self._node}."
        told = await asyncio.gather(*(self._records.get(it) for it in subjects if not it.startswith(ours)))
        return frozenset(name for record in told if record.revision for name in _names(record.data))


def _names(octets: bytes) -> list[Username]:
    try:
        names = json.loads(octets)
    except ValueError:
        raise StoreDamaged("a relay's record of who is there does not decode") from None
    return [Username(name) for name in names if isinstance(name, str)]


class JetStreamBudgets:
    """`ports.Budgets`: each bucket is the moment, in wall-clock time, at which it will be full again.

    One reading and one conditional write a call, so it is exact over all relays whose clocks agree.
    """

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._records = Records(bus, BUDGETS)
        self._clock = clock

    async def take(self, bucket: str, *, rate: float, burst: float, cost: float = 1.0) -> float:
        """Take *cost* tokens; return 0.0 if they were there, else the seconds until they will be."""
        subject = f"aimessage.budget.{bucket.encode().hex()}"
        for _ in range(_TRIES):
            kept = await self._records.get(subject)
            now = milliseconds(self._clock.now()) / 1000
            # No bucket is further from full than its burst: a clock that was wrong empties none for long.
            full_at = min(max(int.from_bytes(kept.data, "big") / 1e6, now), now + burst / rate)
            wait = full_at + cost / rate - now - burst / rate
            if wait > 1e-5:  # a rounding error is no reason to refuse
                return wait
            if await self._records.put([Change(subject, u64(round((full_at + cost / rate) * 1e6)), kept.revision)]):
                return 0.0
        raise contended()
