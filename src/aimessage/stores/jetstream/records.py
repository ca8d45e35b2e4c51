"""Small records, one under each name, changed only by who has seen what stands there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aimessage.stores.jetstream.bus import Bus, Conflict, Message, expecting
from aimessage.stores.jetstream.layout import RECORDS

__all__ = ["ABSENT", "Change", "Record", "Records"]


@dataclass(frozen=True, slots=True)
class Record:
    """What stands under a name; *revision* 0 and no data if nothing does."""

    revision: int
    data: bytes


ABSENT = Record(0, b"")


@dataclass(frozen=True, slots=True)
class Change:
    """A record to write if its revision still is *expected*."""

    subject: str
    data: bytes
    expected: int


class Records:
    """Records in one stream, read from its leader."""

    def __init__(self, bus: Bus, stream: str = RECORDS) -> None:
        self._bus = bus
        self._stream = stream

    async def get(self, subject: str) -> Record:
        """Return what stands there. Raises RelayUnavailable."""
        found = await self._bus.get(self._stream, {"last_by_subj": subject})
        return ABSENT if found is None else Record(found.sequence, found.data)

    async def put(self, changes: Sequence[Change]) -> bool:
        """Write all the changes or none; return whether every revision was as expected. Raises RelayUnavailable."""
        try:
            await self._bus.publish([Message(it.subject, it.data, expecting(it.expected)) for it in changes])
        except Conflict:
            return False
        return True

    async def write(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Write over whatever stands there. Raises RelayUnavailable."""
        await self._bus.publish([Message(subject, data, headers or {})])

    async def delete(self, record: Record) -> bool:
        """Delete exactly this revision; return whether this call did. Raises RelayUnavailable."""
        return await self._bus.delete(self._stream, record.revision)

    async def names(self, pattern: str) -> list[str]:
        """Return the subjects that have a record and match *pattern*. Raises RelayUnavailable."""
        return await self._bus.subjects(self._stream, pattern)
