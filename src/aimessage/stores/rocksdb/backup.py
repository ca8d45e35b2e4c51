"""Backups: a directory that is complete or absent, shares no file with the store, and was read before it counts.

A snapshot is a RocksDB checkpoint: names for the store's own tables. So files are copied, never linked: damage to one
is not damage to the other. Everything is made in a sibling with a temporary name, synced, and renamed.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from aimessage.errors import ConfigInvalid, RelayUnavailable, StoreDamaged
from aimessage.stores.ports import Findings
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.audit import audit
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.mark import MARK_NAME
from aimessage.stores.rocksdb.store import SNAPSHOT, require_schema

__all__ = ["copy_snapshot", "restore_backup", "stopped_snapshot", "verify_directory"]

_COPY_BYTES = 1 << 20
_STOCKS = (b"s", b"p", b"q")
_DROP_BATCH = 1_000


def verify_directory(path: Path) -> Findings:
    """Read a backup, or the store of a relay that does not run, without changing a byte of it.

    Raises ConfigInvalid: there is none, or a relay runs on it. Raises StoreDamaged: it does not even open.
    """
    _require_store(path)
    with _held(path), _view(path) as view:
        try:
            found = _read(view)
        except StoreDamaged as error:
            raise StoreDamaged(error.message.replace(str(view), str(path)), hint=error.hint) from None
    return replace(found, damages=tuple(told.replace(str(view), str(path)) for told in found.damages))


def _read(view: Path) -> Findings:
    engine = Engine(view, read_only=True)
    try:
        require_schema(engine, view)
        return audit(engine)
    finally:
        engine.close()


def copy_snapshot(snapshot: Path, target: Path) -> Findings:
    """Copy *snapshot* to *target*, which must be absent or empty; read the copy; then let it appear.

    Raises ConfigInvalid: *target* cannot be made. Raises StoreDamaged: the copy is damaged; nothing is left of it.
    """
    with _appearing(target, hint="name a directory that does not exist yet") as growing:
        _copy(snapshot, growing)
        return _whole(verify_directory(growing))


@contextmanager
def stopped_snapshot(path: Path) -> Iterator[Path]:
    """A snapshot of the store of a relay that does not run, until the context ends.

    Raises ConfigInvalid: there is none, or a relay runs on it. Raises StoreDamaged: it does not open.
    """
    _require_store(path)
    engine = Engine(path)
    snapshot = path / SNAPSHOT
    try:
        require_schema(engine, path)
        shutil.rmtree(snapshot, ignore_errors=True)
        engine.checkpoint(snapshot)
        yield snapshot
    finally:
        shutil.rmtree(snapshot, ignore_errors=True)
        engine.close()


def restore_backup(backup: Path, path: Path) -> Findings:
    """Make the store *path*, which must be absent or empty, from *backup*, without its one-time pairs.

    Which pairs were served since the backup, nobody knows here; one that is served twice would be a weakness, and
    their owners stock new ones at their next login. Raises as `copy_snapshot`.
    """
    found = _whole(verify_directory(backup))
    with _appearing(path, hint=f"move it away first, for example: mv {path} {path}.old") as growing:
        _copy(backup, growing)
        engine = Engine(growing)
        try:
            _drop_pairs(engine)
            engine.write({keys.SUCCESSOR: None})  # without its pairs, a store that was moved may be one again
        finally:
            engine.close()
        _sync_all(growing)
        _whole(verify_directory(growing))
    return found


def _drop_pairs(engine: Engine) -> None:
    for kind in _STOCKS:
        while found := engine.page(kind, keys.after_prefix(kind), _DROP_BATCH):
            engine.write({key: None for key, _ in found})


def _whole(found: Findings) -> Findings:
    if found.damages:
        named = f" (damaged: {', '.join(found.damaged[:20])})" if found.damaged else ""
        raise StoreDamaged(found.damages[0] + named, hint="see everything with: aimessage-server verify DIR")
    return found


def _require_store(path: Path) -> None:
    if not (path / "CURRENT").is_file():
        raise ConfigInvalid(f"there is no store in {path}", hint="name its directory; the relay's own is --db-path")


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Keep a relay from starting on *path*, by the lock that RocksDB itself takes; a backup has none."""
    try:
        lock = os.open(path / "LOCK", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # no lock file, or a read-only medium: no relay can run there
        yield
        return
    try:
        _lock(lock, path)
        yield
    finally:
        os.close(lock)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigInvalid(
            f"a relay runs on the store {path}", hint=f"ask the relay itself: aimessage-server --db-path {path} verify"
        ) from None


@contextmanager
def _view(path: Path) -> Iterator[Path]:
    """Another directory with links to the store's files: rocksdict rewrites its own note in the one that it opens."""
    with tempfile.TemporaryDirectory(prefix="aimessage-verify-") as view:
        for file in _files(path):
            (Path(view) / file.name).symlink_to(file.absolute())
        yield Path(view)


@contextmanager
def _appearing(target: Path, *, hint: str) -> Iterator[Path]:
    """A new directory beside *target* that becomes *target* when the context ends well, and vanishes otherwise."""
    target = Path(os.path.abspath(target))  # noqa: PTH100 - resolve() would follow a link that stands for it
    try:
        if target.is_dir() and any(target.iterdir()):
            raise ConfigInvalid(f"{target} is not empty", hint=hint)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        growing = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield growing
            growing.replace(target)
            _sync(target.parent)
        finally:
            shutil.rmtree(growing, ignore_errors=True)
    except OSError as error:
        raise RelayUnavailable(f"{target} cannot be made: {error.strerror}") from None


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a store and sync each one."""
    for file in _files(source):
        _copy_file(file, target / file.name)
    _sync(target)


def _files(directory: Path) -> list[Path]:
    """Return the files that make up a store: not its lock, its mark, its logs of talk and rocksdict's note."""
    others = ("LOCK", "rocksdict-config.json", MARK_NAME)
    return [
        file
        for file in sorted(directory.iterdir())
        if file.is_file() and file.name not in others and not file.name.startswith("LOG")
    ]


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing, _COPY_BYTES)
        writing.flush()
        os.fsync(writing.fileno())
    target.chmod(0o600)


def _sync_all(directory: Path) -> None:
    for file in directory.iterdir():
        if file.is_file():
            _sync(file)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
