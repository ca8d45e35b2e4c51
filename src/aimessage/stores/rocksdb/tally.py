"""What the writer decides by: every mailbox's counts, and what this process has put into it and has at hand.

Changed only in the writer thread; the event loop reads. What was appended since the start stays at hand until it is
deleted, up to a bound: while all that a mailbox holds is at hand, neither a repetition, nor a delivery, nor an
acknowledgement has to ask the engine.
"""

from collections.abc import Iterable, Iterator

import msgspec

from aimessage.errors import StoreDamaged
from aimessage.octets import Reader
from aimessage.stores.ledger import CONTROL, Ledger, expiry, malformed
from aimessage.stores.ports import Posting, Quotas, Receipt, Refusal, Stored
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.writer import Batch
from aimessage.types import MessageId, Position, Username

__all__ = ["Account", "Accounts", "Entry", "decode_entry"]

_NAMED = 20
_AT_HAND_BYTES = 16 << 20  # of sealed bodies and what each entry costs beside them
_ENTRY_BYTES = 1_000


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


def decode_entry(owner: Username, octets: bytes) -> Entry:
    """Return an entry of *owner*'s mailbox. Raises StoreDamaged."""
    try:
        return _decoder.decode(octets)
    except msgspec.MsgspecError:
        raise StoreDamaged(f"an entry in the mailbox of {owner} does not decode") from None


class _AtHand(msgspec.Struct, frozen=True, gc=False):
    """One entry that this process has appended, and the keys that go with it."""

    stored: Stored
    keys: list[bytes]


_NOTHING: dict[int, _AtHand] = {}
_NO_ATTEMPTS: dict[bytes, int] = {}


class Account:
    """One mailbox in memory. *first*: nothing undeleted lies below it, so that scans skip the tombstones there."""

    __slots__ = ("_at_hand", "_attempts", "_committed", "first", "ledger", "next_position", "owner")

    def __init__(self, owner: Username, next_position: int = 1) -> None:
        self.owner = owner
        self.next_position = self.first = self._committed = next_position
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
        return (
            self.next_position.to_bytes(8, "big") + ledger.entries.to_bytes(8, "big") + ledger.bytes.to_bytes(8, "big")
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

    def at(self, position: int) -> _AtHand | None:
        """Return the entry at *position*, if it is at hand."""
        return self._at_hand.get(position)

    def hold(self, entry: _AtHand) -> None:
        """Keep an entry at hand that has been counted."""
        if self._at_hand is _NOTHING:
            self._at_hand, self._attempts = {}, {}
        self._at_hand[entry.stored.position] = entry
        self._attempts[entry.keys[1]] = entry.stored.position

    def let_go(self, position: int) -> None:
        """Forget an entry that is going to be counted out."""
        entry = self._at_hand.pop(position)
        del self._attempts[entry.keys[1]]
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


class Accounts:
    """Every mailbox."""

    def __init__(self, engine: Engine, quotas: Quotas) -> None:
        self._engine = engine
        self._quotas = quotas
        self._accounts: dict[Username, Account] = {}
        self._bytes_at_hand = 0
        self.load()

    def load(self) -> None:
        """Count every mailbox again. Raises StoreDamaged, naming the mailbox whose record says otherwise."""
        records = dict(self._engine.scan(keys.MAILBOXES, keys.after_prefix(keys.MAILBOXES)))
        accounts = {(owner := keys.mailbox_owner(key)): _opened(owner, record) for key, record in records.items()}
        try:
            self._count(accounts)
        except StoreDamaged as error:
            raise _named(self._engine, accounts, error) from None
        for owner, account in accounts.items():
            _check(owner, account, records[keys.mailbox(owner)])
        self._accounts, self._bytes_at_hand = accounts, 0

    def _count(self, accounts: dict[Username, Account]) -> None:
        for key, octets in self._engine.scan(keys.ENTRIES, keys.after_prefix(keys.ENTRIES)):
            owner, position = keys.entry_parts(key)
            account = accounts.get(owner)
            if account is None or position >= account.next_position:
                raise StoreDamaged(f"the mailbox of {owner} holds an entry that its record does not know")
            entry = decode_entry(owner, octets)
            if account.ledger.entries == 0:
                account.first = position
            account.ledger.add(position, Username(entry.sender), entry.mail_class, len(entry.sealed))

    def of(self, owner: Username) -> Account:
        """Return the counts of one mailbox; those of an unknown one are all zero and not kept."""
        return self._accounts.get(owner) or Account(owner)

    def totals(self) -> tuple[int, int]:
        """Return the entries and the sealed bytes of all mailboxes; from any thread."""
        ledgers = [account.ledger for account in list(self._accounts.values())]
        return sum(ledger.entries for ledger in ledgers), sum(ledger.bytes for ledger in ledgers)

    def post(self, batch: Batch, posting: Posting) -> Receipt | Refusal:
        """Store one posting or refuse it."""
        impossible = malformed(posting)
        if impossible is not None:
            return impossible
        account = self._accounts.get(posting.owner)
        if account is None:
            account = self._accounts[posting.owner] = Account(posting.owner)
        attempt = b"d%b\0%b\0%b%b" % (
            *(posting.owner.encode(), posting.sender.encode()),
            *(posting.message_id, posting.attempt.to_bytes(4, "big")),
        )
        known = account.position_of(attempt)
        if known is None and not account.is_at_hand and (found := batch.get(attempt)) is not None:
            known = int.from_bytes(found, "big")
        if known is not None:
            return self._repeat(batch, account, Position(known))
        refusal = account.ledger.refusal(posting, self._quotas)
        if refusal is not None:
            return refusal
        oldest = account.ledger.evict(self._quotas) if posting.mail_class == CONTROL else None
        if oldest is not None:
            self.remove(batch, posting.owner, oldest, None)
        return self._store(batch, account, posting, attempt)

    def _store(self, batch: Batch, account: Account, posting: Posting, attempt: bytes) -> Receipt:
        sender, mail_class, sealed = posting.sender, posting.mail_class, posting.sealed
        expires_at = expiry(posting, self._quotas)
        position = Position(account.next_position)
        place = position.to_bytes(8, "big")
        stored = Stored(
            position, sender, posting.message_id, posting.attempt, mail_class, posting.accepted_at, expires_at, sealed
        )
        account.next_position += 1
        account.ledger.add(position, sender, mail_class, len(sealed))
        name = account.owner.encode()
        entry = b"m%b\0%b" % (name, place)
        items = batch.items
        items[entry] = _encode(
            (sender, posting.message_id, posting.attempt, mail_class, posting.accepted_at, expires_at, sealed)
        )
        items[attempt] = place
        batch.count(account)
        ours = [entry, attempt]
        if expires_at:
            ours.append(b"x%b%b%b" % (expires_at.to_bytes(8, "big"), place, name))
            items[ours[2]] = b""
        size = len(sealed) + _ENTRY_BYTES
        if self._bytes_at_hand + size <= _AT_HAND_BYTES:
            self._bytes_at_hand += size
            account.hold(_AtHand(stored, ours))
        return Receipt(position, posting.accepted_at, expires_at, duplicate=False)

    def _repeat(self, batch: Batch, account: Account, position: Position) -> Receipt:
        at_hand = account.at(position)
        if at_hand is not None:
            return Receipt(position, at_hand.stored.accepted_at, at_hand.stored.expires_at, duplicate=True)
        octets = batch.get(keys.entry(account.owner, position))
        if octets is None:
            raise StoreDamaged(f"an entry in the mailbox of {account.owner} is indexed and missing")
        entry = decode_entry(account.owner, octets)
        return Receipt(position, entry.accepted_at, entry.expires_at, duplicate=True)

    def remove(self, batch: Batch, owner: Username, position: Position, message_id: MessageId | None) -> bool:
        """Delete one entry if it is there and, unless None, *message_id* is its id; return whether it was."""
        account = self._accounts.get(owner)
        if account is None:
            return False
        at_hand = account.at(position)
        if at_hand is None:
            return not account.is_at_hand and self._remove_far(batch, account, position, message_id)
        stored = at_hand.stored
        if message_id is not None and message_id != stored.message_id:
            return False
        account.let_go(position)
        size = len(stored.sealed)
        self._bytes_at_hand -= size + _ENTRY_BYTES
        account.ledger.remove(position, stored.sender, stored.mail_class, size)
        for key in at_hand.keys:
            batch.items[key] = None
        _removed(batch, account, position)
        return True

    def _remove_far(self, batch: Batch, account: Account, position: Position, message_id: MessageId | None) -> bool:
        """Delete an entry that has to be looked for."""
        owner = account.owner
        if not 0 < position < 1 << 64:  # it came from the wire
            return False
        octets = batch.get(keys.entry(owner, position))
        if octets is None:
            return False
        entry = decode_entry(owner, octets)
        if message_id is not None and message_id != entry.message_id:
            return False
        sender = Username(entry.sender)
        account.ledger.remove(position, sender, entry.mail_class, len(entry.sealed))
        batch.delete(keys.entry(owner, position))
        batch.delete(keys.attempt(owner, sender, MessageId(entry.message_id), entry.attempt))
        if entry.expires_at:
            batch.delete(keys.expiry(entry.expires_at, position, owner))
        _removed(batch, account, position)
        return True


def _removed(batch: Batch, account: Account, position: Position) -> None:
    if account.ledger.entries == 0:
        account.first = account.next_position
    elif account.first == position:
        account.first = position + 1
    batch.count(account)


def _opened(owner: Username, record: bytes) -> Account:
    return Account(owner, int.from_bytes(record[:8], "big"))


def _check(owner: Username, account: Account, record: bytes) -> None:
    if account.record() != record:
        reader, held = Reader(record[8:]), account.ledger
        raise StoreDamaged(
            f"the mailbox of {owner} should hold {reader.integer(8)} entries of {reader.integer(8)} bytes in all "
            f"and holds {held.entries} of {held.bytes}"
        )


def _named(engine: Engine, owners: Iterable[Username], error: StoreDamaged) -> StoreDamaged:
    """Return *error* with the names of the mailboxes that do not read, if it has come from reading all at once."""
    unread = [owner for owner in owners if not _reads(engine, owner)]
    if not unread:
        return error
    named = ", ".join(unread[:_NAMED]) + (" and others" if len(unread) > _NAMED else "")
    return StoreDamaged(f"the mailbox of {named} cannot be read: {error.message}")


def _reads(engine: Engine, owner: Username) -> bool:
    try:
        for _ in engine.scan(*keys.owned(keys.ENTRIES, owner)):
            pass
    except StoreDamaged:
        return False
    return True
