"""Mailboxes: entries on disk, their counts in memory and, in the same batch, on disk to check them against."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from aimessage.errors import RelayUnavailable, StoreDamaged
from aimessage.octets import Reader, u64
from aimessage.stores.ledger import CONTROL, Ledger, expired, expiry, malformed
from aimessage.stores.ports import CaughtUp, Posting, Quotas, Receipt, Refusal, Stored
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.writer import Batch, Writer
from aimessage.stores.turns import in_turn
from aimessage.types import MessageId, Position, Username

__all__ = ["Accounts", "Entry", "RocksMailboxes", "decode_entry"]

_PAGE = 64
_NAMED = 20


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


@dataclass(slots=True)
class _Account:
    """One mailbox in memory. *first*: nothing undeleted lies below it, so that scans skip the tombstones there."""

    next_position: int = 1
    first: int = 1
    ledger: Ledger = field(default_factory=Ledger)

    def record(self) -> bytes:
        return u64(self.next_position) + u64(self.ledger.entries) + u64(self.ledger.bytes)


class Accounts:
    """What the writer decides by: every mailbox's counts. Changed only in the writer thread."""

    def __init__(self, engine: Engine, quotas: Quotas) -> None:
        self._engine = engine
        self._quotas = quotas
        self._accounts: dict[Username, _Account] = {}
        self.load()

    def load(self) -> None:
        """Count every mailbox again. Raises StoreDamaged, naming the mailbox whose record says otherwise."""
        records = dict(self._engine.scan(keys.MAILBOXES, keys.after_prefix(keys.MAILBOXES)))
        accounts = {keys.mailbox_owner(key): _opened(record) for key, record in records.items()}
        try:
            self._count(accounts)
        except StoreDamaged as error:
            raise _named(self._engine, accounts, error) from None
        for owner, account in accounts.items():
            _check(owner, account, records[keys.mailbox(owner)])
        self._accounts = accounts

    def _count(self, accounts: dict[Username, _Account]) -> None:
        for key, octets in self._engine.scan(keys.ENTRIES, keys.after_prefix(keys.ENTRIES)):
            owner, position = keys.entry_parts(key)
            account = accounts.get(owner)
            if account is None or position >= account.next_position:
                raise StoreDamaged(f"the mailbox of {owner} holds an entry that its record does not know")
            entry = decode_entry(owner, octets)
            if account.ledger.entries == 0:
                account.first = position
            account.ledger.add(position, Username(entry.sender), entry.mail_class, len(entry.sealed))

    def of(self, owner: Username) -> _Account:
        """Return the counts of one mailbox; those of an unknown one are all zero and not kept."""
        return self._accounts.get(owner) or _Account()

    def totals(self) -> tuple[int, int]:
        """Return the entries and the sealed bytes of all mailboxes; from any thread."""
        ledgers = [account.ledger for account in list(self._accounts.values())]
        return sum(ledger.entries for ledger in ledgers), sum(ledger.bytes for ledger in ledgers)

    def post(self, batch: Batch, posting: Posting) -> Receipt | Refusal:
        """Store one posting or refuse it."""
        impossible = malformed(posting)
        if impossible is not None:
            return impossible
        owner = posting.owner
        attempt = keys.attempt(owner, posting.sender, posting.message_id, posting.attempt)
        known = batch.get(attempt)
        if known is not None:
            return self._repeat(batch, owner, Position(int.from_bytes(known, "big")))
        account = self._accounts.setdefault(owner, _Account())
        refusal = account.ledger.refusal(posting, self._quotas)
        if refusal is not None:
            return refusal
        oldest = account.ledger.evict(self._quotas) if posting.mail_class == CONTROL else None
        if oldest is not None:
            self.remove(batch, owner, oldest, None)
        return self._store(batch, account, posting, attempt)

    def _store(self, batch: Batch, account: _Account, posting: Posting, attempt: bytes) -> Receipt:
        owner, sender, mail_class = posting.owner, posting.sender, posting.mail_class
        expires_at = expiry(posting, self._quotas)
        position = Position(account.next_position)
        entry = Entry(
            sender, posting.message_id, posting.attempt, mail_class, posting.accepted_at, expires_at, posting.sealed
        )
        account.next_position += 1
        account.ledger.add(position, sender, mail_class, len(posting.sealed))
        batch.put(keys.entry(owner, position), _encode(entry))
        batch.put(attempt, u64(position))
        batch.put(keys.mailbox(owner), account.record())
        if expires_at:
            batch.put(keys.expiry(expires_at, position, owner), b"")
        return Receipt(position, posting.accepted_at, expires_at, duplicate=False)

    def _repeat(self, batch: Batch, owner: Username, position: Position) -> Receipt:
        octets = batch.get(keys.entry(owner, position))
        if octets is None:
            raise StoreDamaged(f"an entry in the mailbox of {owner} is indexed and missing")
        entry = decode_entry(owner, octets)
        return Receipt(position, entry.accepted_at, entry.expires_at, duplicate=True)

    def remove(self, batch: Batch, owner: Username, position: Position, message_id: MessageId | None) -> bool:
        """Delete one entry if it is there and, unless None, *message_id* is its id; return whether it was."""
        if not 0 < position < 1 << 64:  # it came from the wire
            return False
        octets = batch.get(keys.entry(owner, position))
        if octets is None:
            return False
        entry = decode_entry(owner, octets)
        if message_id is not None and message_id != entry.message_id:
            return False
        account, sender = self._accounts[owner], Username(entry.sender)
        account.ledger.remove(position, sender, entry.mail_class, len(entry.sealed))
        if account.ledger.entries == 0:
            account.first = account.next_position
        elif account.first == position:
            account.first = position + 1
        batch.delete(keys.entry(owner, position))
        batch.delete(keys.attempt(owner, sender, MessageId(entry.message_id), entry.attempt))
        batch.put(keys.mailbox(owner), account.record())
        if entry.expires_at:
            batch.delete(keys.expiry(entry.expires_at, position, owner))
        return True


def _opened(record: bytes) -> _Account:
    position = int.from_bytes(record[:8], "big")
    return _Account(next_position=position, first=position)


def _check(owner: Username, account: _Account, record: bytes) -> None:
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


class RocksMailboxes:
    """`ports.Mailboxes` on RocksDB."""

    def __init__(self, engine: Engine, writer: Writer, accounts: Accounts) -> None:
        self._engine = engine
        self._writer = writer
        self._accounts = accounts

    async def append(self, batch: Sequence[Posting]) -> list[Receipt | Refusal]:
        """Store each posting or refuse it, in order, in one commit; on disk when it returns."""
        post = self._accounts.post
        try:
            return await self._writer.run(lambda pending: in_turn(batch, partial(post, pending)), grows=True)
        except RelayUnavailable as error:
            return [Refusal(error.code, error.message, 1.0)] * len(batch)

    async def stream(self, owner: Username, *, after: Position, now_ms: int) -> AsyncIterator[Stored | CaughtUp]:
        """Yield the undeleted, unexpired entries with a position above *after*, in order, then one CaughtUp."""
        account = self._accounts.of(owner)
        stop = keys.entry(owner, account.next_position)
        at = max(after + 1, account.first)
        # A short mailbox costs less than the way to another thread and back.
        nearby = account.ledger.entries <= _PAGE
        while found := await self._page(keys.entry(owner, at), stop, nearby=nearby):
            if at <= account.first:  # what was scanned over is deleted: the next scan starts behind it
                account.first = max(account.first, keys.entry_parts(found[0][0])[1])
            for key, octets in found:
                at = int.from_bytes(key[-8:], "big") + 1
                entry = decode_entry(owner, octets)
                if not expired(entry.expires_at, now_ms):
                    yield _stored(Position(at - 1), entry)
        yield CaughtUp()

    async def _page(self, start: bytes, stop: bytes, *, nearby: bool) -> list[tuple[bytes, bytes]]:
        if start >= stop:
            return []
        if nearby:
            return self._engine.page(start, stop, _PAGE)
        return await asyncio.to_thread(self._engine.page, start, stop, _PAGE)

    async def ack(self, owner: Username, entries: Sequence[tuple[Position, MessageId]]) -> int:
        """Delete the entries whose position and id both match; return how many. Raises RelayUnavailable."""
        remove = self._accounts.remove
        return await self._writer.run(
            lambda pending: sum(remove(pending, owner, position, message_id) for position, message_id in entries),
            grows=False,
        )

    async def depth(self, owner: Username) -> tuple[int, int]:
        """Return the entries and the sealed bytes that the mailbox holds."""
        ledger = self._accounts.of(owner).ledger
        return ledger.entries, ledger.bytes

    async def totals(self) -> tuple[int, int]:
        """Return the entries and the sealed bytes that all mailboxes hold."""
        return await asyncio.to_thread(self._accounts.totals)

    async def expire(self, now_ms: int, *, limit: int) -> int:
        """Delete up to *limit* entries that expired before *now_ms*, in any mailbox. Raises RelayUnavailable."""
        found = await asyncio.to_thread(self._engine.page, keys.expiry_bound(0), keys.expiry_bound(now_ms), limit)
        over = [keys.expiry_parts(key) for key, _ in found]
        if not over:
            return 0
        remove = self._accounts.remove
        return await self._writer.run(
            lambda pending: sum(remove(pending, owner, position, None) for owner, position in over), grows=False
        )


def _stored(position: Position, entry: Entry) -> Stored:
    sender, message_id = Username(entry.sender), MessageId(entry.message_id)
    return Stored(
        position, sender, message_id, entry.attempt, entry.mail_class, entry.accepted_at, entry.expires_at, entry.sealed
    )
