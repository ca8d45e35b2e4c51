"""Writing entries: one atomic batch a partition; a repetition is found by the engine, on whichever relay it came."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aimessage.clock import Clock
from aimessage.errors import RelayUnavailable
from aimessage.stores.jetstream.bus import BATCH_MESSAGES, Bus, Conflict, Message, expecting
from aimessage.stores.jetstream.entries import encode_entry, stored
from aimessage.stores.jetstream.layout import Place, mailbox
from aimessage.stores.ports import Posting, Receipt, Refusal
from aimessage.types import Position

__all__ = ["Planned", "Writer"]

_PATIENCE_SECONDS = 5.0  # for a partition without a leader, before its senders are told to come back
_PAUSE_SECONDS = 0.1
_ROUNDS = 5
_WRITTEN_SECONDS = 2.0  # for one try: of a leader that is gone there is no answer, and the next one has it
_LOOKS_AT_ONCE = 64
_TTL_SLACK_MS = 60_000  # the engine's own end of an entry comes later than ours: its clock is another one
_MAX_TTL_SECONDS = 10 * 365 * 86_400
_UNAVAILABLE = Refusal("relay_unavailable", "the store does not take this now", 2.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """A posting that fits. *suspect*: it seems to be there already."""

    index: int
    posting: Posting
    place: Place
    expires_at: int
    suspect: bool


class Writer:
    """Writes planned postings and says what became of each."""

    def __init__(self, bus: Bus, partitions: int, clock: Clock) -> None:
        self._bus = bus
        self._partitions = partitions
        self._clock = clock
        self._looks = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def write(self, planned: Sequence[Planned]) -> dict[int, Receipt | Refusal]:
        """Write all; return the answers by index. Each partition fares by itself."""
        by_stream: dict[str, list[Planned]] = {}
        for item in planned:
            by_stream.setdefault(mailbox(item.place.owner, self._partitions)[0], []).append(item)
        answers: dict[int, Receipt | Refusal] = {}
        async with asyncio.TaskGroup() as tasks:
            for stream, items in by_stream.items():
                tasks.create_task(self._write_stream(stream, items, answers))
        return answers

    async def _write_stream(self, stream: str, items: list[Planned], answers: dict[int, Receipt | Refusal]) -> None:
        for at in range(0, len(items), BATCH_MESSAGES):
            chunk = items[at : at + BATCH_MESSAGES]
            if not await self._persist(stream, chunk, answers):
                # What stands behind must not overtake it.
                answers.update({item.index: _UNAVAILABLE for item in items[at:] if item.index not in answers})
                return

    async def _persist(self, stream: str, chunk: list[Planned], answers: dict[int, Receipt | Refusal]) -> bool:
        """Write one batch, again while that may help: the engine takes no entry twice. Return whether it was."""
        until = self._clock.monotonic() + _PATIENCE_SECONDS
        suspects = [item for item in chunk if item.suspect]
        for _ in range(_ROUNDS):
            try:
                await self._find(stream, suspects, answers)
                rest = [item for item in chunk if item.index not in answers]
                if rest:
                    last = await self._bus.publish([self._message(item) for item in rest], _WRITTEN_SECONDS)
                    self._receipts(rest, last, answers)
            except Conflict:
                suspects = [item for item in chunk if item.index not in answers]
            except RelayUnavailable:
                if self._clock.monotonic() >= until:
                    return False
                suspects = []
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return True
        return False

    @staticmethod
    def _receipts(items: list[Planned], last: int, answers: dict[int, Receipt | Refusal]) -> None:
        first = last - len(items) + 1
        for at, item in enumerate(items):
            answers[item.index] = Receipt(
                Position(first + at), item.posting.accepted_at, item.expires_at, duplicate=False
            )

    async def _find(self, stream: str, suspects: Sequence[Planned], answers: dict[int, Receipt | Refusal]) -> None:
        found = await asyncio.gather(*(self.find(stream, item) for item in suspects))
        answers.update({item.index: it for item, it in zip(suspects, found, strict=True) if it is not None})

    async def find(self, stream: str, item: Planned) -> Receipt | None:
        """Return the receipt of an entry that is there already. Raises RelayUnavailable."""
        async with self._looks:
            found = await self._bus.get(stream, {"last_by_subj": self._pattern(item.place)})
        if found is None:
            return None
        entry = stored(found)
        # A try of ours whose answer was lost is no repetition: its recipient has not been woken yet.
        ours = not item.suspect and found.data == encode_entry(item.posting, item.expires_at)
        return Receipt(entry.position, entry.accepted_at, entry.expires_at, duplicate=not ours)

    def _pattern(self, place: Place) -> str:
        return f"{mailbox(place.owner, self._partitions)[1]}.{place.key}.*.*"

    def _message(self, item: Planned) -> Message:
        headers = expecting(0, self._pattern(item.place))
        if item.expires_at:
            lasting = item.expires_at - item.posting.accepted_at + _TTL_SLACK_MS
            headers["Nats-TTL"] = f"{max(1, min(lasting // 1000 + 1, _MAX_TTL_SECONDS))}s"
        subject = f"{mailbox(item.place.owner, self._partitions)[1]}.{item.place.tail}"
        return Message(subject, encode_entry(item.posting, item.expires_at), headers)
