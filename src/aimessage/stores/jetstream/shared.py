"""What the relays on one store share and nobody needs on disk: who is there, and what has been counted."""

import asyncio
import json
from collections import Counter

import msgspec

from aimessage.clock import Clock, milliseconds
from aimessage.errors import RelayUnavailable, StoreDamaged
from aimessage.stores.jetstream.accounts import contended
from aimessage.stores.jetstream.bus import Bus
from aimessage.stores.jetstream.layout import BUDGETS, HERE
from aimessage.stores.jetstream.records import Change, Records
from aimessage.stores.windows import Events, count_one, within
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
        self._changed.set()  # that this relay is there is told at once, too
        self._told = 0
        self._others: frozenset[Username] = frozenset()
        self._nodes: set[str] = set()
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

    async def relays(self) -> int:
        """Return how many relays tell who is with them, this one included; one that is gone counts for a minute."""
        await self.online()
        return len(self._nodes | {self._node})

    async def _hear(self) -> frozenset[Username]:
        subjects = await self._records.names("aimessage.here.>")
        self._nodes = {subject.split(".")[2] for subject in subjects}
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
    """`ports.Budgets`: a record of each key holds its events, by wall-clock time.

    One reading and one conditional write an event, so it is exact over all relays whose clocks agree; a relay whose
    clock is wrong by a twentieth of the time is wrong by about as much of the limit.
    """

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._records = Records(bus, BUDGETS)
        self._clock = clock

    async def take(self, key: str, *, limit: int, seconds: float) -> float:
        """Count one event; return 0.0 if it is within the limit, else the seconds until one would be."""
        for _ in range(_TRIES if limit else 0):
            kept = await self._records.get(_budget(key))
            events, now = _events(kept.data), self._now
            if wait := within(events, now, limit=limit, seconds=seconds):
                return wait
            count_one(events, now, seconds=seconds)
            if await self._records.put([Change(_budget(key), json.dumps(events).encode(), kept.revision)]):
                return 0.0
        if not limit:
            return 0.0
        raise contended()

    async def wait(self, key: str, *, limit: int, seconds: float) -> float:
        """Return what `take` would; count nothing."""
        if not limit:
            return 0.0
        kept = await self._records.get(_budget(key))
        return within(_events(kept.data), self._now, limit=limit, seconds=seconds)

    @property
    def _now(self) -> float:
        return milliseconds(self._clock.now()) / 1000


def _budget(key: str) -> str:
    return f"aimessage.budget.{key.encode().hex()}"


def _events(octets: bytes) -> Events:
    try:
        return msgspec.json.decode(octets, type=Events) if octets else []
    except msgspec.DecodeError:
        raise StoreDamaged("the store's record of a limit does not decode") from None
