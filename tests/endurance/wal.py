"""RocksDB's write-ahead log, read byte by byte: blocks of 32 KiB, each holding fragments behind a header of 7 bytes.

A fragment is checksum(4) length(2) type(1) data; a record is one whole fragment (type 1) or a first (2), middles (3)
and a last (4). See the format notes of RocksDB's log reader.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["BLOCK_BYTES", "HEADER_BYTES", "Record", "newest_log", "records"]

HEADER_BYTES: Final = 7
BLOCK_BYTES: Final = 32 << 10
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Record:
    """One record: where its first header starts, where its last byte ends, and what it says."""

    start: int
    end: int
    payload: bytes


def _fragments(log: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each fragment's start, end and type, until the log ends or holds zeros that were only allocated."""
    at = 0
    while at + HEADER_BYTES <= len(log):
        if BLOCK_BYTES - at % BLOCK_BYTES < HEADER_BYTES:  # a block's tail too short for a header is padding
            at += BLOCK_BYTES - at % BLOCK_BYTES
            continue
        end, kind = at + HEADER_BYTES + int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        if kind == 0 or end > len(log):
            return
        yield at, end, kind
        at = end


def records(log: bytes) -> Iterator[Record]:
    """Yield the whole records of a log; their checksums are not looked at."""
    start, parts = 0, b""
    for at, end, kind in _fragments(log):
        if kind in (_FULL, _FIRST):
            start, parts = at, b""
        parts += log[at + HEADER_BYTES : end]
        if kind in (_FULL, _LAST):
            yield Record(start, end, parts)


def newest_log(data: Path) -> Path:
    """Return the log that was written last."""
    return max(data.glob("*.log"), key=lambda path: int(path.stem))
