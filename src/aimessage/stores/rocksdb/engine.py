"""The only module that touches `rocksdict`: its options, its traps and its one exception type.

`rocksdict` raises bare `Exception`, so each call is wrapped once here and comes out as ours. Raw mode is set on
the options and on every batch, or keys would get a type byte in front.
"""

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from rocksdict import (
    AccessType,
    Checkpoint,
    DbClosedError,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from aimessage.errors import AimessageError, ConfigInvalid, RelayUnavailable, StoreDamaged
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.journal import require_fresh_records
from aimessage.stores.rocksdb.mark import HighWaterMark
from aimessage.stores.rocksdb.torn import cut_torn_end

__all__ = ["Engine"]

_WAL_BYTES = 64 << 20
_PAGE = 256
_PROBE_BYTES = 1 << 20
_UNCOUNTED_BYTES = 1 << 20  # written since the logs were last looked at
_UNSYNCED_BYTES = 4 << 10  # of the log: a disk that loses them loses its end, and no hole before it
_NOTHING: dict[bytes, bytes | None] = {}
# What the system says when it is short of something, and nothing on the disk is wrong.
_SHORTAGES = ("No space left", "Disk quota exceeded", "File too large", "Too many open files", "Cannot allocate memory")


def _options(*, create: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    # A torn last record is a write that nobody was told of; damage anywhere else is damage.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_is_fd_close_on_exec(True)
    options.set_max_total_wal_size(_WAL_BYTES)
    options.set_keep_log_file_num(4)
    return options


class Engine:
    """One open RocksDB. `write`, `checkpoint` and `reopen` belong to one thread; reads may come from any.

    *read_only*: no file is made or changed, and no lock is taken: only for what nobody else writes to.
    *paranoid*: each commit moves the high-water mark, and opening compares with it.
    """

    def __init__(self, path: Path, *, read_only: bool = False, paranoid: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        self._scanning = threading.Lock()
        self._unsynced_bytes = 0
        self._before = _NOTHING  # what stood where a commit has written that is not synced yet
        self._logs_bytes: int | None = None  # when they were last looked at
        self._written_bytes = 0  # since then
        self._mark: HighWaterMark | None = None
        self._db = self._open(read_only=read_only)
        if paranoid:
            try:
                self._mark = HighWaterMark(path)
                self._mark.check(self._db.latest_sequence_number())
            except BaseException:
                self.close()
                raise

    def _open(self, *, read_only: bool) -> Rdict:
        access = AccessType.read_only(False) if read_only else AccessType.read_write()
        try:
            require_fresh_records(self._path)
            try:
                return Rdict(str(self._path), _options(create=not read_only), access_type=access)
            except Exception as error:
                # A power cut, not damage: nobody was told of a commit whose sync had not returned.
                if read_only or "Corruption" not in str(error) or not cut_torn_end(self._path):
                    raise
                return Rdict(str(self._path), _options(create=not read_only), access_type=access)
        except StoreDamaged:
            raise
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            if "/LOCK:" in str(error):
                raise ConfigInvalid(
                    f"the store {self._path} is in use by another relay",
                    hint="stop the other relay, or give this one its own --db-path",
                ) from None
            if _is_shortage(error):
                raise RelayUnavailable(f"the store {self._path} cannot be opened now: {error}") from None
            raise StoreDamaged(f"the store {self._path} does not open: {error}") from None

    @property
    def path(self) -> Path:
        """The store's directory."""
        return self._path

    def get(self, key: bytes) -> bytes | None:
        """Return the value under *key*; of a commit that is not synced yet, what was there before.

        Raises RelayUnavailable while reopening, StoreDamaged if it does not read; that names whose it is.
        """
        try:
            value = self._db.get(key)
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise _read_error(error, keys.subject(key, key)) from None
        before = self._before  # only now: what was read is old, or stands in here, or has been synced
        return before[key] if key in before else value if isinstance(value, bytes) else None

    def page(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return up to *limit* pairs with start ≤ key < stop, in order; fewer: there are no more. Raises as `get`."""
        with self._scanning:  # an iterator that is alive at close() would keep the engine's lock file
            try:
                found = self._page(start, stop, limit)
            except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
                raise _read_error(error, keys.subject(start, stop)) from None
        before = self._before
        if not before:
            return found
        end = found[-1][0] + b"\0" if len(found) == limit else stop
        old = {**dict(found), **{key: value for key, value in before.items() if start <= key < end}}
        kept = [(key, value) for key, value in sorted(old.items()) if value is not None][:limit]
        return kept if end == stop or len(kept) == limit else kept + self.page(end, stop, limit - len(kept))

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

    def write(self, items: Mapping[bytes, bytes | None], *, lasting: bool = True) -> None:
        """Put or (None) delete all items in one commit, on disk when it returns. Raises RelayUnavailable.

        One that is not *lasting* survives the end of this process at once, and a power cut once a lasting one follows.
        """
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in items.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
        size = batch.size_in_bytes()
        self._written_bytes += size
        self._unsynced_bytes += size
        is_synced = lasting or self._unsynced_bytes > _UNSYNCED_BYTES
        try:
            if is_synced:
                self._before = {key: self._db.get(key) for key in items if key[0] not in keys.MAIL}
            self._db.write(batch)
            if is_synced:  # and not by a synced write, through which rocksdict holds the interpreter's lock
                self._db.flush_wal(sync=True)
                self._before = _NOTHING
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            raise RelayUnavailable(f"the store does not take writes: {error}") from None
        if is_synced:
            self._unsynced_bytes = 0
            if self._mark is not None:  # it must never be ahead of the disk
                self._mark.advance(self._db.latest_sequence_number())

    def checkpoint(self, target: Path) -> None:
        """Make directory *target*, on our file system: links to the tables and a copy of the log, all commits so far.

        Raises RelayUnavailable: it cannot be made now. Raises StoreDamaged: what must be read for it does not read.
        """
        try:
            self._db.flush()  # else the checkpoint does it, and holds the interpreter's lock meanwhile
            Checkpoint(self._db).create_checkpoint(str(target))
        except Exception as error:  # noqa: BLE001 - rocksdict raises nothing narrower
            if "Corruption" in str(error):
                raise _read_error(error, None) from None
            raise RelayUnavailable(f"the store cannot be copied now: {error}") from None

    def reopen(self) -> None:
        """Close and open again; what was committed is there.

        Raises ConfigInvalid or StoreDamaged and stays closed. Raises RelayUnavailable and, if possible, still reads.
        """
        with self._scanning:
            self._release()
            try:
                self._db = self._open(read_only=self._read_only)
            except RelayUnavailable:
                with suppress(AimessageError):
                    self._db = self._open(read_only=True)
                raise
            self._before = _NOTHING  # what was not synced is gone, or has been written anew
            if self._mark is not None:
                self._mark.check(self._db.latest_sequence_number())

    def close(self) -> None:
        """Release everything."""
        with self._scanning:
            self._release()
        if self._mark is not None:
            self._mark.close()

    def _release(self) -> None:
        # It is closed whatever this raises: that it was closed before, or that its last write has failed, as we know.
        with suppress(Exception):
            self._db.close()

    def wal_bytes(self, *, exactly: bool = False) -> int:
        """Return the size of the write-ahead logs, or (not *exactly*) what it may be by now: a look costs ten calls."""
        if exactly or self._logs_bytes is None or self._written_bytes > _UNCOUNTED_BYTES:
            self._logs_bytes, self._written_bytes = self._sum_of_logs(), 0
        return self._logs_bytes + self._written_bytes

    def _sum_of_logs(self) -> int:
        total = 0
        with os.scandir(self._path) as files:
            for file in files:
                if file.name.endswith(".log"):
                    with suppress(FileNotFoundError):  # the engine drops a log when all in it is in tables
                        total += file.stat().st_size
        return total

    def can_grow(self) -> bool:
        """Return whether a file of ours can take a mebibyte now: to ask before `reopen`, while we still read."""
        probe = self._path / "probe"
        try:
            with probe.open("wb") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            return False
        finally:
            with suppress(OSError):
                probe.unlink()
        return True

    def free_bytes(self) -> int:
        """Return the space left on the file system for us."""
        return shutil.disk_usage(self._path).free


def _read_error(error: Exception, subject: str | None) -> AimessageError:
    if isinstance(error, DbClosedError):
        return RelayUnavailable("the store is being reopened")
    if _is_shortage(error):
        return RelayUnavailable(f"the store cannot be read now: {error}")
    return StoreDamaged(f"{subject or 'the store'} cannot be read: {error}")


def _is_shortage(error: Exception) -> bool:
    return any(shortage in str(error) for shortage in _SHORTAGES)
