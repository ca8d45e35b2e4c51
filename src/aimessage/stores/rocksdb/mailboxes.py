"""Mailboxes: entries on disk, their counts in memory and, in the same batch, on disk to check them against."""

import asyncio
from collections.abc import Sequence
from functools import partial

from aimessage.errors import RelayUnavailable
from aimessage.stores.ports import Page, Posting, Receipt, Refusal, Stored
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.mailbox import Account, decode_entry
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

    async def page(self, owner: Username, *, after: Position, now_ms: int, limit: int) -> Page:
        """Return the first undeleted, unexpired entries with a position above *after*, at most *limit*."""
        account = self._accounts.of(owner)
        entries = account.above(after, _SPREAD, limit)
        if entries is None:
            entries, up_to, is_last = await self._far(account, after, min(limit, _PAGE))
        else:
            is_last = len(entries) < limit
            up_to = entries[-1].position if entries else after
        return Page([each for each in entries if not 0 < each.expires_at <= now_ms], up_to, is_last)

    async def _far(self, account: Account, after: Position, limit: int) -> tuple[list[Stored], Position, bool]:
        """Read entries that are not all at hand: return them, how far they go, and whether that is all."""
        at = max(after + 1, account.first)
        start, stop = keys.entry(account.owner, at), keys.entry(account.owner, account.committed_below)
        if start >= stop:
            return [], after, True
        if account.ledger.entries <= _PAGE:  # a short mailbox costs less than the way to another thread and back
            found = self._engine.page(start, stop, limit)
        else:
            found = await asyncio.to_thread(self._engine.page, start, stop, limit)
        entries = [_stored(account.owner, key, octets) for key, octets in found]
        if entries and at <= account.first:  # what was scanned over is deleted: the next scan starts behind it
            account.first = max(account.first, entries[0].position)
        return entries, entries[-1].position if entries else after, len(found) < limit

    async def ack(self, owner: Username, entries: Sequence[tuple[Position, MessageId]]) -> int:
        """Delete the entries whose position and id both match; return how many. Raises RelayUnavailable.

        After a power cut they may be there again: whoever acknowledged them knows them.
        """
        accounts = self._accounts
        return await self._writer.run(
            lambda pending: accounts.acknowledge(pending, owner, entries), grows=False, lasting=False
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
                accounts.remove(pending, owner, position)
                for owner, position in over + accounts.overdue(now_ms, limit - len(over))
            ),
            grows=False,
            lasting=False,
        )


def _stored(owner: Username, key: bytes, octets: bytes) -> Stored:
    entry = decode_entry(owner, octets)
    position, sender, message_id = keys.entry_parts(key)[1], Username(entry.sender), MessageId(entry.message_id)
    return Stored(
        position, sender, message_id, entry.attempt, entry.mail_class, entry.accepted_at, entry.expires_at, entry.sealed
    )
