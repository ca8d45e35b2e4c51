"""The embedded store: RocksDB, one process, one writer thread with group commit."""

from aimessage.stores.rocksdb.backup import copy_snapshot, restore_backup, stopped_snapshot, verify_directory
from aimessage.stores.rocksdb.store import RocksStore, open_rocksdb_store

__all__ = [
    "RocksStore",
    "copy_snapshot",
    "open_rocksdb_store",
    "restore_backup",
    "stopped_snapshot",
    "verify_directory",
]
