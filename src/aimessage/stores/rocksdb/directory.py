"""Accounts and their stocks of one-time pairs.

A stock is a queue whose two ends are kept beside it, so that a claim reads one key and never walks what was
already claimed.
"""

import asyncio
from collections.abc import Sequence

from aimessage.errors import RecipientUnknown, StoreDamaged
from aimessage.octets import u64
from aimessage.stores.ports import Registered
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.writer import Batch, Writer
from aimessage.stores.shapes import dump_account, load_account
from aimessage.types import Username, VaultId

__all__ = ["RocksDirectory", "RocksPairs", "claim_name", "standing_account"]


def standing_account(batch: Batch, username: Username) -> Registered | None:
    """Return who has this name, if anybody has. Raises StoreDamaged."""
    octets = batch.get(keys.user(username))
    return None if octets is None else load_account(username, octets)


def claim_name(batch: Batch, account: Registered) -> Registered:
    """Give *account* its name if it is free; return who has it then. Raises StoreDamaged."""
    there = standing_account(batch, account.username)
    if there is not None:
        return there
    batch.put(keys.user(account.username), dump_account(account))
    return account


class RocksDirectory:
    """`ports.Directory` on RocksDB."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    async def register(self, account: Registered) -> Registered:
        """Claim a username and return what stands there now: *account*, or whoever was first. Atomic."""
        return await self._writer.run(lambda batch: claim_name(batch, account), grows=True)

    async def find(self, username: Username) -> Registered | None:
        """Return the account of this name, if there is one."""
        octets = self._engine.get(keys.user(username))
        return None if octets is None else load_account(username, octets)

    async def publish(self, username: Username, *, bundle: bytes, vault_id: VaultId, epoch: int) -> None:
        """Replace the account's bundle and drop the stock of any other vault. Raises RecipientUnknown."""

        def replace(batch: Batch) -> None:
            old = standing_account(batch, username)
            if old is None:
                raise RecipientUnknown(f"nobody is registered as {username}")
            new = Registered(username, old.signing_key, bundle, vault_id, epoch, old.registered_at)
            batch.put(keys.user(username), dump_account(new))
            for key, _ in _stocks(batch, username):
                stocked = VaultId(key.removeprefix(keys.stocks(username)))
                if stocked != vault_id:
                    _drop(batch, username, stocked)

        await self._writer.run(replace, grows=True)

    async def names(self, *, after: str, limit: int) -> list[Username]:
        """Return up to *limit* usernames above *after*, in order."""
        start, stop = keys.user(after) + b"\0", keys.after_prefix(keys.user(""))
        found = await asyncio.to_thread(self._engine.page, start, stop, limit)
        return [keys.username(key) for key, _ in found]


class RocksPairs:
    """`ports.Pairs` on RocksDB: a claim is decided and deleted in the writer thread."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    async def stock(self, owner: Username, vault_id: VaultId, pairs: Sequence[bytes]) -> int:
        """Add encoded pairs of this vault and return the stock's size."""

        def add(batch: Batch) -> int:
            first, last = _ends(batch.get(keys.stock(owner, vault_id)))
            for pair in pairs:
                digest = keys.pair_digest(owner, vault_id, pair)
                if batch.get(digest) is None:
                    batch.put(digest, u64(last))
                    batch.put(keys.pair(owner, vault_id, last), pair)
                    last += 1
            batch.put(keys.stock(owner, vault_id), u64(first) + u64(last))
            return _total(_stocks(batch, owner))

        return await self._writer.run(add, grows=True)

    async def claim(self, owner: Username, vault_id: VaultId) -> bytes | None:
        """Take the oldest pair of this vault out of the stock, for good; None if there is none."""
        return await self._writer.run(lambda batch: _take(batch, owner, vault_id), grows=False)

    async def count(self, owner: Username) -> int:
        """Return the stock's size."""
        prefix = keys.stocks(owner)
        return _total(list(self._engine.scan(prefix, keys.after_prefix(prefix))))


def _stocks(batch: Batch, owner: Username) -> list[tuple[bytes, bytes]]:
    prefix = keys.stocks(owner)
    return batch.scan(prefix, keys.after_prefix(prefix))


def _ends(record: bytes | None) -> tuple[int, int]:
    if record is None:
        return 0, 0
    return int.from_bytes(record[:8], "big"), int.from_bytes(record[8:], "big")


def _total(stocks: list[tuple[bytes, bytes]]) -> int:
    return sum(last - first for first, last in (_ends(record) for _, record in stocks))


def _take(batch: Batch, owner: Username, vault_id: VaultId) -> bytes | None:
    first, last = _ends(batch.get(keys.stock(owner, vault_id)))
    if first == last:
        return None
    pair = batch.get(keys.pair(owner, vault_id, first))
    if pair is None:
        raise StoreDamaged(f"a one-time pair of {owner} is counted and missing")
    batch.delete(keys.pair(owner, vault_id, first))
    batch.delete(keys.pair_digest(owner, vault_id, pair))
    batch.put(keys.stock(owner, vault_id), u64(first + 1) + u64(last))
    return pair


def _drop(batch: Batch, owner: Username, vault_id: VaultId) -> None:
    while _take(batch, owner, vault_id) is not None:
        pass
    batch.delete(keys.stock(owner, vault_id))
