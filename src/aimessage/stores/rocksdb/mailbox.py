"""One mailbox in memory: its counts, and those of its newest entries that are in no index. `tally` has all of them."""

from itertools import islice

import msgspec

from aimessage.errors import StoreDamaged
from aimessage.stores.ledger import Ledger
from aimessage.stores.ports import Stored
from aimessage.stores.rocksdb import keys
from aimessage.types import MessageId, Username

__all__ = ["Account", "AtHand", "Attempt", "Entry", "decode_entry", "encode_entry", "indexed_below"]


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry as it is kept."""

    sender: str
    message_id: bytes
    attempt: int
    mail_class: int
    accepted_at: int
    expires_at: int
    sealed: bytes


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Entry)


def encode_entry(stored: Stored) -> bytes:
    """Return an entry as it is kept."""
    sender, message_id, attempt, sealed = stored.sender, stored.message_id, stored.attempt, stored.sealed
    return _encode((sender, message_id, attempt, stored.mail_class, stored.accepted_at, stored.expires_at, sealed))


def decode_entry(owner: Username, octets: bytes) -> Entry:
    """Return an entry of *owner*'s mailbox. Raises StoreDamaged."""
    try:
        return _decoder.decode(octets)
    except msgspec.MsgspecError:
        raise StoreDamaged(f"an entry in the mailbox of {owner} does not decode") from None


Attempt = tuple[Username, MessageId, int]
"""Sender, id and number of the attempt: what is stored once in a mailbox."""


class AtHand(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One entry that is in no index, the key where it is kept, and what makes another one its repetition."""

    stored: Stored
    key: bytes
    attempt: Attempt


_NOTHING: dict[int, AtHand] = {}
_NO_ATTEMPTS: dict[Attempt, int] = {}


class Account:
    """One mailbox in memory. *first*: nothing undeleted lies below it, so that scans skip the tombstones there.
    *committed_below*: what lies below it is on disk, and nothing above it is delivered, though the engine may show it.

    *prefix* is what the key of each of its entries begins with; the position follows.
    """

    __slots__ = (
        *("_at_hand", "_attempts"),
        *("committed_below", "first", "indexed_below", "ledger", "next_position", "owner", "prefix"),
    )

    def __init__(self, owner: Username, next_position: int = 1, indexed_below: int = 1) -> None:
        self.owner = owner
        self.prefix = keys.entries(owner)
        self.next_position = self.first = self.committed_below = next_position
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
        self.committed_below = self.next_position

    @property
    def is_at_hand(self) -> bool:
        """Whether everything undeleted is at hand. Never wrongly so, whichever thread asks: an entry is at hand only
        after it was counted, and is not any more before it is counted out.
        """
        return len(self._at_hand) == self.ledger.entries

    def position_of(self, attempt: Attempt) -> int | None:
        """Return the position of an entry at hand, pending ones included."""
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

    def above(self, after: int, spread: int, limit: int) -> list[Stored] | None:
        """Return the first committed entries above *after*, in order; None: not all are at hand, or they lie far apart.

        *spread* is how many positions are looked through.
        """
        at, end = max(after + 1, self.first), self.committed_below
        if end - at > spread or not self.is_at_hand:
            return None
        there = filter(None, map(self._at_hand.get, range(at, end)))
        found = [entry.stored for entry in islice(there, limit)]
        if found and at <= self.first:  # what was passed is deleted: the next look starts here
            self.first = max(self.first, found[0].position)
        return found


def indexed_below(record: bytes) -> int:
    """Return the position from which on a mailbox's entries are in no index, by its record; schema 1 indexed all."""
    return int.from_bytes(record[24:32] or record[:8], "big")
