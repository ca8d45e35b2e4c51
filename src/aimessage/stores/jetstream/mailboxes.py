"""Mailboxes: a fixed number of streams, each entry under a subject of its own below its mailbox's."""

import asyncio
from collections.abc import Callable, Sequence

from aimessage.clock import Clock
from aimessage.errors import RelayUnavailable
from aimessage.stores.jetstream.appending import Writer
from aimessage.stores.jetstream.bus import Bus, Found
from aimessage.stores.jetstream.entries import stored
from aimessage.stores.jetstream.ground import Ground
from aimessage.stores.jetstream.layout import Place, mail_stream
from aimessage.stores.jetstream.planning import Append
from aimessage.stores.ledger import expired
from aimessage.stores.ports import Page, Posting, Quotas, Receipt, Refusal, Stored
from aimessage.types import MessageId, Position, Username

__all__ = ["JetStreamMailboxes"]

_PAGE = 100
_PAGE_BYTES = 2 << 20
_POSITIONS = range(1, 1 << 63)
_EXACT_TOTALS = 20_000
_OVERHEAD_BYTES = 420  # of an entry in a stream, over its sealed bytes: subject, headers, lengths


class JetStreamMailboxes:
    """`ports.Mailboxes` on JetStream; *woken* is told whose mailbox has something new."""

    def __init__(
        self, bus: Bus, quotas: Quotas, partitions: int, clock: Clock, woken: Callable[[set[Username]], None]
    ) -> None:
        self._ground = Ground(bus, quotas, partitions, clock, woken)
        self._writer = Writer(bus, partitions, clock)
        self._bus = bus
        self._seen = self._ground.seen
        self._appending = asyncio.Lock()
        self.on_commit: Callable[[float], None] = lambda seconds: None

    async def append(self, batch: Sequence[Posting]) -> list[Receipt | Refusal]:
        """Store each posting or refuse it, in order; what cannot be stored now is refused with relay_unavailable."""
        async with self._appending:
            began = self._ground.clock.monotonic()
            answers = await Append(self._ground, self._writer, batch).run()
            self.on_commit(self._ground.clock.monotonic() - began)
            return answers

    async def page(self, owner: Username, *, after: Position, now_ms: int, limit: int) -> Page:
        """Return the first undeleted, unexpired entries with a position above *after*, at most *limit*."""
        stream, start = self._ground.mailbox(owner)
        count = min(limit, _PAGE)
        found = await self._bus.page(stream, f"{start}.>", after=after, count=count, size_bytes=_PAGE_BYTES)
        if not found:  # a replica may lag: the leader has the last word
            last = await self._bus.get(stream, {"seq": after + 1, "next_by_subj": f"{start}.>"})
            if last is None:
                return Page((), after, is_last=True)
            found = [last]
        entries = [self._remember(stream, each) for each in found]
        unexpired = [entry for entry in entries if not expired(entry.expires_at, now_ms)]
        return Page(unexpired, entries[-1].position, is_last=False)

    async def ack(self, owner: Username, entries: Sequence[tuple[Position, MessageId]]) -> int:
        """Delete the entries whose position and id both match; return how many. Raises RelayUnavailable."""
        wanted = {(position, message_id) for position, message_id in entries if position in _POSITIONS}
        return sum(await asyncio.gather(*(self._ack(owner, *entry) for entry in sorted(wanted))))

    async def depth(self, owner: Username) -> tuple[int, int]:
        """Return the entries and the sealed bytes that the mailbox holds."""
        places = await self._ground.counts.places(owner)
        return len(places), sum(place.size for place in places)

    async def totals(self) -> tuple[int, int]:
        """Return the entries and the sealed bytes of all mailboxes; where there are many, about so many bytes."""
        totals = await asyncio.gather(*map(self._total, range(self._ground.partitions)))
        return sum(entries for entries, _ in totals), sum(size for _, size in totals)

    async def expire(self, now_ms: int, *, limit: int) -> int:
        """Delete up to *limit* expired entries that went through this relay; the engine ends the others by itself."""
        count = 0
        while count < limit and (over := self._seen.next_over(now_ms)) is not None:
            stream, position, place = over
            try:
                count += await self._ground.remove(stream, position, place)
            except RelayUnavailable:
                self._seen.put_back(stream, position, now_ms)
                raise
        return count

    async def _ack(self, owner: Username, position: Position, message_id: MessageId) -> bool:
        stream, _ = self._ground.mailbox(owner)
        place = self._seen.place(stream, position)
        if place is None:
            async with self._ground.slots:
                found = await self._bus.get(stream, {"seq": position})
            if found is None:
                return False
            place = Place.of(found.subject)
        if place.owner != owner or place.message_id != message_id:
            return False
        return await self._ground.remove(stream, position, place)

    async def _total(self, partition: int) -> tuple[int, int]:
        stream = mail_stream(partition)
        state = (await self._bus.info(stream)).get("state")
        entries, size = (int(state["messages"]), int(state["bytes"])) if isinstance(state, dict) else (0, 0)
        if entries > _EXACT_TOTALS:
            return entries, max(0, size - entries * _OVERHEAD_BYTES)
        subjects = await self._bus.subjects(stream, ">") if entries else []
        return len(subjects), sum(Place.of(subject).size for subject in subjects)

    def _remember(self, stream: str, found: Found) -> Stored:
        entry = stored(found)
        self._seen.add(stream, found.sequence, Place.of(found.subject), entry.expires_at)
        return entry
