"""One mailbox in memory: its counts, and those of its newest entries that are in no index. `tally` has all of them."""

from collections.abc import Iterator

import msgspec

from aimessage.errors import StoreDamaged
from aimessage.stores.ledger import Ledger
from aimessage.stores.ports import Stored
from aimessage.stores.rocksdb import keys
from aimessage.types import Username

__all__ = ["Account", "AtHand", "Entry", "decode_entry", "encode_entry", "indexed_below"]


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry as it is kept."""

    sender: str
    message_id: bytes
    attempt: int
    mail_class: int
    accepted_at: int
    expires_at: int
    sealed: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode_entry(stored: Stored) -> bytes:
    """Return an entry as it is kept."""
    return _encoder.encode(
        (
            *(stored.sender, stored.message_id, stored.attempt, stored.mail_class),
            *(stored.accepted_at, stored.expires_at, stored.sealed),
        )
    )


def decode_entry(owner: Username, octets: bytes) -> Entry:
    """Return an entry of *owner*'s mailbox. Raises StoreDamaged."""
    try:
        return _decoder.decode(octets)
    except msgspec.MsgspecError:
        raise StoreDamaged(f"an entry in the mailbox of {owner} does not decode") from None


class AtHand(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One entry that is in no index, and its keys: where it is kept, and what makes another one its repetition."""

    stored: Stored
    key: bytes
    attempt: bytes


_NOTHING: dict[int, AtHand] = {}
_NO_ATTEMPTS: dict[bytes, int] = {}


class Account:
    """One mailbox in memory. *first*: nothing undeleted lies below it, so that scans skip the tombstones there."""

    __slots__ = (
        *("_at_hand", "_attempts", "_committed"),
        *("first", "indexed_below", "ledger", "next_position", "owner"),
    )

    def __init__(self, owner: Username, next_position: int = 1, indexed_below: int = 1) -> None:
        self.owner = owner
        self.next_position = self.first = self._committed = next_position
        self.indexed_below = indexed_below
        self.ledger = Ledger()
        self._at_hand = _NOTHING
        self._attempts = _NO_ATTEMPTS

    @property
    def key(self) -> bytes:
        """Where the counts are kept."""
        return keys.mailbox(self.owner)

    def record(self) -> bytes:
        """Return what is kept of the counts."""
        ledger = self.ledger
        return b"".join(
            [
                self.next_position.to_bytes(8, "big"),
                ledger.entries.to_bytes(8, "big"),
                ledger.bytes.to_bytes(8, "big"),
                self.indexed_below.to_bytes(8, "big"),
            ]
        )

    def committed(self) -> None:
        """All that was appended is on disk: it may be delivered."""
        self._committed = self.next_position

    @property
    def is_at_hand(self) -> bool:
        """Whether everything undeleted is at hand. Never wrongly so, whichever thread asks: an entry is at hand only
        after it was counted, and is not any more before it is counted out.
        """
        return len(self._at_hand) == self.ledger.entries

    def position_of(self, attempt: bytes) -> int | None:
        """Return the position of an entry at hand, pending ones included, by its attempt's key."""
        return self._attempts.get(attempt)

    def at(self, position: int) -> AtHand | None:
        """Return the entry at *position*, if it is at hand."""
        return self._at_hand.get(position)

    def hold(self, entry: AtHand) -> None:
        """Keep an entry at hand that has been counted."""
        if self._at_hand is _NOTHING:
            self._at_hand, self._attempts = {}, {}
        self._at_hand[entry.stored.position] = entry
        self._attempts[entry.attempt] = entry.stored.position

    def let_go(self, entry: AtHand) -> None:
        """Forget an entry that is going to be counted out, or is in the indexes from now on."""
        del self._at_hand[entry.stored.position], self._attempts[entry.attempt]
        if not self._at_hand:  # a mailbox that nothing waits in costs no more than its counts
            self._at_hand, self._attempts = _NOTHING, _NO_ATTEMPTS

    def above(self, after: int, most: int) -> Iterator[Stored] | None:
        """Return the committed entries above *after*, in order; None: not all are at hand, or they lie far apart."""
        at, end = max(after + 1, self.first), self._committed
        if end - at > most or not self.is_at_hand:
            return None
        return self._between(at, end)

    def _between(self, at: int, end: int) -> Iterator[Stored]:
        is_from_start = at <= self.first
        for position in range(at, end):
            if (entry := self._at_hand.get(position)) is not None:
                if is_from_start:  # what was passed is deleted: the next look starts here
                    self.first, is_from_start = max(self.first, position), False
                yield entry.stored


def indexed_below(record: bytes) -> int:
    """Return the position from which on a mailbox's entries are in no index, by its record; schema 1 indexed all."""
    return int.from_bytes(record[24:32] or record[:8], "big")
