"""A look at the heads of the records in log and manifest before RocksDB reads them.

A record's type has a bit that means "written over an older file". We never write over one, so a set bit is damage. But
RocksDB believes it before any checksum: it takes the record for the leftover of an older log and ends there without a
word, or waits for ever. So these heads are read here first: seven bytes each, in blocks of 32 KiB.
"""

from pathlib import Path

from aimessage.errors import StoreDamaged

__all__ = ["require_fresh_records"]

_BLOCK_BYTES = 32 << 10
_HEAD_BYTES = 7  # checksum 4, length 2, type 1
_WRITTEN_OVER = frozenset({5, 6, 7, 8, 11, 131})


def require_fresh_records(directory: Path) -> None:
    """Require that no log and no manifest in use holds such a record. Raises StoreDamaged, naming file and place."""
    for path in [*directory.glob("*.log"), *_manifest(directory)]:
        with path.open("rb") as file:
            start = 0
            while block := file.read(_BLOCK_BYTES):
                at = _written_over(block)
                if at is not None:
                    raise StoreDamaged(
                        f"the store {directory} does not open: "
                        f"the record at byte {start + at} of {path.name} is of a type that nobody wrote"
                    )
                start += len(block)


def _manifest(directory: Path) -> list[Path]:
    current = directory / "CURRENT"
    if not current.is_file():
        return []
    named = directory / current.read_bytes()[:100].decode("ascii", "replace").strip()
    return [named] if named.is_file() else []


def _written_over(block: bytes) -> int | None:
    """Return where in *block* such a record begins; None if there is none."""
    at = 0
    while at + _HEAD_BYTES <= len(block) and block[at + 6]:  # behind the last record there are zeros
        if block[at + 6] in _WRITTEN_OVER:
            return at
        at += _HEAD_BYTES + int.from_bytes(block[at + 4 : at + 6], "little")
    return None
