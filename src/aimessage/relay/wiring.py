"""The composition root: the only place that names a concrete store."""

from aimessage.clock import Clock
from aimessage.crypto.random import Entropy
from aimessage.relay.config import RelayConfig
from aimessage.stores.ports import Store

__all__ = ["open_store"]


async def open_store(config: RelayConfig, *, entropy: Entropy, clock: Clock) -> Store:
    """Return the store that *config* names, open.

    Raises StoreDamaged, RelayUnavailable: it cannot be opened, or another process holds it.
    """
    if config.store == "memory":
        from aimessage.stores.memory import open_memory_store

        return open_memory_store(quotas=config.quotas, entropy=entropy, clock=clock)
    from aimessage.stores.rocksdb import open_rocksdb_store  # imported where used: a memory relay needs no RocksDB

    return await open_rocksdb_store(config.db_path, quotas=config.quotas, entropy=entropy, clock=clock)
