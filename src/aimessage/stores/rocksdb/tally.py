"""What the writer decides by: every mailbox's counts, and its newest mail.

Changed only in the writer thread; the event loop reads. The newest entries of all mailboxes together, up to a bound,
are at hand: repetitions, deliveries and acknowledgements of live mail have nothing to look for, and it has no rows in
the indexes of attempts and expiry. When the bound is passed, the oldest are indexed, of each mailbox in order: what
lies below its `indexed_below` is in both indexes, and what lies above is at hand, after a restart too.
"""

from collections import OrderedDict
from collections.abc import Iterable

from aimessage.errors import StoreDamaged
from aimessage.octets import Reader, u64
from aimessage.stores.ledger import CONTROL, expired, expiry, malformed
from aimessage.stores.ports import Posting, Quotas, Receipt, Refusal, Stored
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.mailbox import Account, AtHand, Attempt, decode_entry, encode_entry, indexed_below
from aimessage.stores.rocksdb.writer import Batch
from aimessage.types import MessageId, Position, Username

__all__ = ["Accounts"]

_NAMED = 20
_AT_HAND_BYTES = 16 << 20  # of sealed bodies and what each entry costs beside them
_ENTRY_BYTES = 1_000


class Accounts:
    """Every mailbox."""

    def __init__(self, engine: Engine, quotas: Quotas) -> None:
        self._engine = engine
        self._quotas = quotas
        self._accounts: dict[Username, Account] = {}
        self._at_hand: OrderedDict[AtHand, Account] = OrderedDict()  # of all mailboxes, the oldest first
        self._bytes_at_hand = 0
        self._soonest = 0
        self.load()

    def load(self) -> None:
        """Count every mailbox again. Raises StoreDamaged, naming the mailbox whose record says otherwise."""
        records = dict(self._engine.scan(keys.MAILBOXES, keys.after_prefix(keys.MAILBOXES)))
        accounts = {(owner := keys.mailbox_owner(key)): _opened(owner, record) for key, record in records.items()}
        self._at_hand.clear()
        self._bytes_at_hand = self._soonest = 0
        try:
            self._count(accounts)
        except StoreDamaged as error:
            raise _named(self._engine, accounts, error) from None
        for owner, account in accounts.items():
            _check(owner, account, records[keys.mailbox(owner)])
        self._accounts = accounts

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
            if position >= account.indexed_below:
                sender, message_id = Username(entry.sender), MessageId(entry.message_id)
                stored = Stored(
                    *(position, sender, message_id, entry.attempt, entry.mail_class),
                    *(entry.accepted_at, entry.expires_at, entry.sealed),
                )
                self._hold(account, AtHand(stored, key, (sender, message_id, entry.attempt)))

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
        attempt = posting.sender, posting.message_id, posting.attempt
        known = account.position_of(attempt)
        if known is None and not account.is_at_hand:
            found = batch.get(keys.attempt(posting.owner, *attempt))
            known = int.from_bytes(found, "big") if found is not None else None
        if known is not None:
            return self._repeat(batch, account, Position(known))
        refusal = account.ledger.refusal(posting, self._quotas)
        if refusal is not None:
            return refusal
        oldest = account.ledger.evict(self._quotas) if posting.mail_class == CONTROL else None
        if oldest is not None:
            self.remove(batch, posting.owner, oldest)
        return self._store(batch, account, posting, attempt)

    def _store(self, batch: Batch, account: Account, posting: Posting, attempt: Attempt) -> Receipt:
        sender, mail_class, sealed = posting.sender, posting.mail_class, posting.sealed
        expires_at = expiry(posting, self._quotas)
        position: Position = account.next_position  # type: ignore[assignment]  # to say so costs a call
        accepted_at = posting.accepted_at
        stored = Stored(
            position, sender, posting.message_id, posting.attempt, mail_class, accepted_at, expires_at, sealed
        )
        account.next_position = position + 1
        account.ledger.add(position, sender, mail_class, len(sealed))
        key = account.prefix + position.to_bytes(8, "big")
        batch.items[key] = encode_entry(stored)
        batch.count(account)
        self._hold(account, AtHand(stored, key, attempt))
        while self._bytes_at_hand > _AT_HAND_BYTES:
            self._index_oldest(batch)
        return Receipt(position, accepted_at, expires_at, False)

    def _hold(self, account: Account, entry: AtHand) -> None:
        account.hold(entry)
        self._at_hand[entry] = account
        self._bytes_at_hand += len(entry.stored.sealed) + _ENTRY_BYTES
        expires_at = entry.stored.expires_at
        if expires_at and (expires_at < self._soonest or not self._soonest):
            self._soonest = expires_at

    def _index_oldest(self, batch: Batch) -> None:
        """Put the entry that has been at hand for longest into the indexes instead."""
        entry, account = self._at_hand.popitem(last=False)
        stored = entry.stored
        batch.put(keys.attempt(account.owner, *entry.attempt), u64(stored.position))
        if stored.expires_at:
            batch.put(keys.expiry(stored.expires_at, stored.position, account.owner), b"")
        account.indexed_below = stored.position + 1
        account.let_go(entry)
        self._bytes_at_hand -= len(stored.sealed) + _ENTRY_BYTES
        batch.count(account)

    def has_overdue(self, now_ms: int) -> bool:
        """Return whether `overdue` may return anything; from any thread."""
        return 0 < self._soonest <= now_ms

    def overdue(self, now_ms: int, limit: int) -> list[tuple[Username, Position]]:
        """Return up to *limit* entries at hand that have expired: no index leads there."""
        over = [
            (account.owner, entry.stored.position)
            for entry, account in self._at_hand.items()
            if expired(entry.stored.expires_at, now_ms)
        ]
        later = [entry.stored.expires_at for entry in self._at_hand if entry.stored.expires_at > now_ms]
        self._soonest = now_ms if len(over) > limit else min(later, default=0)
        return over[:limit]

    def _repeat(self, batch: Batch, account: Account, position: Position) -> Receipt:
        at_hand = account.at(position)
        if at_hand is not None:
            return Receipt(position, at_hand.stored.accepted_at, at_hand.stored.expires_at, duplicate=True)
        octets = batch.get(keys.entry(account.owner, position))
        if octets is None:
            raise StoreDamaged(f"an entry in the mailbox of {account.owner} is indexed and missing")
        entry = decode_entry(account.owner, octets)
        return Receipt(position, entry.accepted_at, entry.expires_at, duplicate=True)

    def acknowledge(self, batch: Batch, owner: Username, entries: Iterable[tuple[Position, MessageId]]) -> int:
        """Delete the entries whose position and id both match; return how many."""
        account = self._accounts.get(owner)
        if account is None:
            return 0
        return sum([self._remove(batch, account, position, message_id) for position, message_id in entries])

    def remove(self, batch: Batch, owner: Username, position: Position) -> bool:
        """Delete one entry if it is there; return whether it was."""
        account = self._accounts.get(owner)
        return account is not None and self._remove(batch, account, position, None)

    def _remove(self, batch: Batch, account: Account, position: Position, message_id: MessageId | None) -> bool:
        at_hand = account.at(position)
        if at_hand is None:
            return not account.is_at_hand and self._remove_far(batch, account, position, message_id)
        stored = at_hand.stored
        if message_id is not None and message_id != stored.message_id:
            return False
        account.let_go(at_hand)
        del self._at_hand[at_hand]
        size = len(stored.sealed)
        self._bytes_at_hand -= size + _ENTRY_BYTES
        account.ledger.remove(position, stored.sender, stored.mail_class, size)
        batch.items[at_hand.key] = None
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
    position = int.from_bytes(record[:8], "big")
    return Account(owner, position, indexed_below(record))


def _check(owner: Username, account: Account, record: bytes) -> None:
    if account.record()[: len(record)] != record:
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
