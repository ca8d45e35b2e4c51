"""The only module that touches `rocksdict`: its options, its traps and its one exception type.

`rocksdict` raises bare `Exception`, so each call is wrapped once here and comes out as ours. Raw mode is set on
the options and on every batch, or keys would get a type byte in front.
"""

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from rocksdict import DbClosedError, DBRecoveryMode, Options, Rdict, ReadOptions, WriteBatch, WriteOptions

from aimessage.errors import AimessageError, ConfigInvalid, RelayUnavailable, StoreDamaged

__all__ = ["Engine"]

_WAL_BYTES = 64 << 20
_PAGE = 256


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    # A torn last record is a write that nobody was told of; damage anywhere else is damage.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_is_fd_close_on_exec(True)
    options.set_max_total_wal_size(_WAL_BYTES)
    options.set_keep_log_file_num(4)
    return options


class Engine:
    """One open RocksDB. `write` and `reopen` belong to one thread; reads may come from any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scanning = threading.Lock()
        self._synced = WriteOptions()
        self._synced.sync = True
        self._db = self._open()

    def _open(self) -> Rdict:
        try:
            return Rdict(str(self._path), _options())
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            if "LOCK" in str(error):
                raise ConfigInvalid(
                    f"the store {self._path} is in use by another relay",
                    hint="stop the other relay, or give this one its own --db-path",
                ) from None
            raise StoreDamaged(f"the store {self._path} does not open: {error}") from None

    def get(self, key: bytes) -> bytes | None:
        """Return the value under *key*. Raises RelayUnavailable while reopening, StoreDamaged if it does not read."""
        try:
            value = self._db.get(key)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise _read_error(error) from None
        return value if isinstance(value, bytes) else None

    def page(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return up to *limit* pairs with start ≤ key < stop, in order. Raises as `get`."""
        with self._scanning:  # an iterator that is alive at close() would keep the engine's lock file
            try:
                return self._page(start, stop, limit)
            except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
                raise _read_error(error) from None

    def _page(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        bounds = ReadOptions()
        bounds.set_iterate_upper_bound(stop)
        iterator = self._db.iter(bounds)
        found: list[tuple[bytes, bytes]] = []
        iterator.seek(start)
        while len(found) < limit and iterator.valid():
            found.append((iterator.key(), iterator.value()))
            iterator.next()
        iterator.status()  # raises if the scan ended for another reason than the bound
        del iterator
        return found

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield all pairs with start ≤ key < stop, in order, a bounded page at a time."""
        while found := self.page(start, stop, _PAGE):
            yield from found
            start = found[-1][0] + b"\0"

    def write(self, items: Mapping[bytes, bytes | None]) -> None:
        """Put or (None) delete all items in one commit, on disk when it returns. Raises RelayUnavailable."""
        batch = WriteBatch(raw_mode=True)
        for key, value in items.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        try:
            self._db.write(batch, self._synced)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise RelayUnavailable(f"the store does not take writes: {error}") from None

    def reopen(self) -> None:
        """Close and open again; what was committed is there. Raises ConfigInvalid or StoreDamaged and stays closed."""
        with self._scanning:
            with suppress(DbClosedError):  # the last reopen closed it and did not get further
                self._db.close()
            self._db = self._open()

    def close(self) -> None:
        """Release everything."""
        with self._scanning, suppress(DbClosedError):
            self._db.close()

    def wal_bytes(self) -> int:
        """Return the size of the write-ahead logs."""
        total = 0
        for log in self._path.glob("*.log"):
            with suppress(FileNotFoundError):  # the engine drops a log when all in it is in tables
                total += log.stat().st_size
        return total

    def free_bytes(self) -> int:
        """Return the space left on the file system for us."""
        return shutil.disk_usage(self._path).free


def _read_error(error: Exception) -> AimessageError:
    if isinstance(error, DbClosedError):
        return RelayUnavailable("the store is being reopened")
    return StoreDamaged(f"the store does not read: {error}")
