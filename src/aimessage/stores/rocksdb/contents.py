"""What moves a store elsewhere: the stocks, the generations, and the word that it has moved."""

import asyncio

from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.writer import Writer
from aimessage.types import RelayId, Username, VaultId

__all__ = ["RocksContents"]


class RocksContents:
    """`ports.Contents` on RocksDB."""

    def __init__(self, engine: Engine, writer: Writer, relay_id: RelayId) -> None:
        self._engine = engine
        self._writer = writer
        self.relay_id = relay_id

    async def stocks(self, owner: Username) -> dict[VaultId, list[bytes]]:
        """Return the encoded pairs in stock, by vault, the oldest first; nothing is claimed."""
        found: dict[VaultId, list[bytes]] = {}
        for key, pair in await self._owned(keys.pairs(owner)):
            found.setdefault(VaultId(key[:-8].removeprefix(keys.pairs(owner))), []).append(pair)
        return found

    async def generations(self, owner: Username) -> dict[VaultId, int]:
        """Return the highest generation that each vault subscribed with."""
        prefix = keys.generations(owner)
        found = await self._owned(prefix)
        return {VaultId(key.removeprefix(prefix)): int.from_bytes(highest, "big") for key, highest in found}

    async def adopt(self, relay_id: RelayId) -> None:
        """Take over another store's relay id. Raises RelayUnavailable."""
        await self._writer.run(lambda batch: batch.put(keys.RELAY_ID, relay_id), grows=False)
        self.relay_id = relay_id

    async def retire(self, successor: str) -> None:
        """Keep every relay from running on this store from now on. Raises RelayUnavailable."""
        await self._writer.run(lambda batch: batch.put(keys.SUCCESSOR, successor.encode()), grows=False)

    async def successor(self) -> str:
        """Return the address of the store that has taken over, "" if none has."""
        return (self._engine.get(keys.SUCCESSOR) or b"").decode()

    async def _owned(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return await asyncio.to_thread(lambda: list(self._engine.scan(prefix, keys.after_prefix(prefix))))
