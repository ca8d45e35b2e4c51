"""RocksDB's write-ahead log, read byte by byte: blocks of 32 KiB, each holding fragments behind a header of 7 bytes.

A fragment is checksum(4) length(2) type(1) data; a record is one whole fragment (type 1) or a first (2), middles (3)
and a last (4). See the format notes of RocksDB's log reader.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["BLOCK_BYTES", "HEADER_BYTES", "Record", "newest_log", "records", "torn_at"]

HEADER_BYTES: Final = 7
BLOCK_BYTES: Final = 32 << 10
_PAGE_BYTES: Final = 4096
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_CRC_START: Final = 0xFFFFFFFF


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC_TABLE: Final = tuple(map(_crc_row, range(256)))  # CRC-32C


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


def torn_at(log: bytes) -> int | None:
    """Return where the last record starts if the end of it was never written: nothing but zeros follows there.

    A power cut leaves this when the file's new length came to the disk before its data. It was never synced, so
    nobody was told of it. None: the log does not end so.
    """
    zeros_from = len(log.rstrip(b"\0"))
    if len(log) - zeros_from < _PAGE_BYTES // 8:
        return None
    kept = 0
    for at, end, kind in _fragments(log):
        if end > zeros_from - BLOCK_BYTES and not _is_sound(log, at, end):
            break
        if kind in (_FULL, _LAST):
            kept = end
    return kept


def _is_sound(log: bytes, at: int, end: int) -> bool:
    checksum = _CRC_START
    for octet in log[at + 6 : end]:
        checksum = _CRC_TABLE[(checksum ^ octet) & 0xFF] ^ checksum >> 8
    checksum ^= _CRC_START
    masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & _CRC_START
    return masked == int.from_bytes(log[at : at + 4], "little")


def newest_log(data: Path) -> Path:
    """Return the log that was written last."""
    return max(data.glob("*.log"), key=lambda path: int(path.stem))
