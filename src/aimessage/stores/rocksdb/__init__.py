"""The embedded store: RocksDB, one process, one writer thread with group commit."""

from aimessage.stores.rocksdb.store import RocksStore, open_rocksdb_store

__all__ = ["RocksStore", "open_rocksdb_store"]
