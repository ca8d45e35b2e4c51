"""Mailboxes: entries on disk, their counts in memory and, in the same batch, on disk to check them against."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from aimessage.errors import RelayUnavailable
from aimessage.stores.ledger import expired
from aimessage.stores.ports import CaughtUp, Posting, Receipt, Refusal, Stored
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.mailbox import Entry, decode_entry
from aimessage.stores.rocksdb.tally import Accounts
from aimessage.stores.rocksdb.writer import Writer
from aimessage.stores.turns import in_turn
from aimessage.types import MessageId, Position, Username

__all__ = ["RocksMailboxes"]

_PAGE = 64
_SPREAD = 4_096  # positions that are looked through for those at hand


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
        nearby = account.above(after, _SPREAD)
        if nearby is not None:
            for stored in nearby:
                if not expired(stored.expires_at, now_ms):
                    yield stored
            yield CaughtUp()
            return
        stop = keys.entry(owner, account.next_position)
        at = max(after + 1, account.first)
        # A short mailbox costs less than the way to another thread and back.
        is_short = account.ledger.entries <= _PAGE
        while found := await self._page(keys.entry(owner, at), stop, here=is_short):
            if at <= account.first:  # what was scanned over is deleted: the next scan starts behind it
                account.first = max(account.first, keys.entry_parts(found[0][0])[1])
            for key, octets in found:
                at = int.from_bytes(key[-8:], "big") + 1
                entry = decode_entry(owner, octets)
                if not expired(entry.expires_at, now_ms):
                    yield _stored(Position(at - 1), entry)
        yield CaughtUp()

    async def _page(self, start: bytes, stop: bytes, *, here: bool) -> list[tuple[bytes, bytes]]:
        if start >= stop:
            return []
        if here:
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
        accounts = self._accounts
        if not over and not accounts.has_overdue(now_ms):
            return 0
        return await self._writer.run(
            lambda pending: sum(
                accounts.remove(pending, owner, position, None)
                for owner, position in over + accounts.overdue(now_ms, limit - len(over))
            ),
            grows=False,
        )


def _stored(position: Position, entry: Entry) -> Stored:
    sender, message_id = Username(entry.sender), MessageId(entry.message_id)
    return Stored(
        position, sender, message_id, entry.attempt, entry.mail_class, entry.accepted_at, entry.expires_at, entry.sealed
    )
