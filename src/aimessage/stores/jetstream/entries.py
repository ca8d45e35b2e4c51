"""One entry of a mailbox, as bytes; and what this relay remembers of entries that it has seen."""

import heapq
from collections import OrderedDict

import msgspec

from aimessage.errors import StoreDamaged
from aimessage.stores.jetstream.bus import Found
from aimessage.stores.jetstream.layout import Place
from aimessage.stores.ports import Posting, Stored
from aimessage.types import MessageId, Position, Username

__all__ = ["Remembered", "encode_entry", "stored"]

_REMEMBERED = 100_000


class _Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    sender: str
    message_id: bytes
    attempt: int
    mail_class: int
    accepted_at: int
    expires_at: int
    sealed: bytes


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Entry)


def encode_entry(posting: Posting, expires_at: int) -> bytes:
    """Return the entry that *posting* becomes."""
    return _encode(
        _Entry(
            posting.sender,
            posting.message_id,
            posting.attempt,
            posting.mail_class,
            posting.accepted_at,
            expires_at,
            posting.sealed,
        )
    )


def stored(found: Found) -> Stored:
    """Return the entry that was found. Raises StoreDamaged."""
    try:
        entry = _decoder.decode(found.data)
    except msgspec.MsgspecError:
        raise StoreDamaged(f"the entry at {found.subject} does not decode") from None
    return Stored(
        Position(found.sequence),
        Username(entry.sender),
        MessageId(entry.message_id),
        entry.attempt,
        entry.mail_class,
        entry.accepted_at,
        entry.expires_at,
        entry.sealed,
    )


class Remembered:
    """Entries that went through this relay: an acknowledgement of one needs no look, and its end is known."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[str, int], Place] = OrderedDict()
        self._ends: list[tuple[int, str, int]] = []

    def add(self, stream: str, position: int, place: Place, expires_at: int) -> None:
        """Remember an entry; the one longest known makes room."""
        if (stream, position) in self._places:
            return
        self._places[stream, position] = place
        if len(self._places) > _REMEMBERED:
            self._places.popitem(last=False)
        if expires_at:
            if len(self._ends) >= 2 * _REMEMBERED:
                self._ends = [end for end in self._ends if end[1:] in self._places]
                heapq.heapify(self._ends)
            heapq.heappush(self._ends, (expires_at, stream, position))

    def place(self, stream: str, position: int) -> Place | None:
        """Return the place of an entry, if it is known."""
        return self._places.get((stream, position))

    def drop(self, stream: str, position: int) -> None:
        """The entry is gone."""
        self._places.pop((stream, position), None)

    def next_over(self, now_ms: int) -> tuple[str, int, Place] | None:
        """Return, once, an entry whose life ended before *now_ms*; None if there is none."""
        while self._ends and self._ends[0][0] <= now_ms:
            _, stream, position = heapq.heappop(self._ends)
            place = self._places.get((stream, position))
            if place is not None:
                return stream, position, place
        return None

    def put_back(self, stream: str, position: int, expires_at: int) -> None:
        """It could not be deleted now."""
        heapq.heappush(self._ends, (expires_at, stream, position))
