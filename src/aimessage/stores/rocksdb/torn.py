"""The end of a log after a power cut, where the file's new length came to the disk before its data.

RocksDB forgives a last record that is too short for its length, and calls one that ends in zeros damage. Both are the
same: a commit whose sync had not returned, of which nobody was told. Layout of the log: RocksDB's log format, blocks of
32 KiB with fragments behind heads of seven bytes, checksum (CRC-32C, masked) 4, length 2, type 1.
"""

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cut_torn_end"]

_BLOCK_BYTES = 32 << 10
_HEAD_BYTES = 7
_LEAST_ZEROS = 512  # a device's sector: less than one of them cannot be missing
_WHOLE, _LAST = 1, 4
_MASK = (1 << 32) - 1


def cut_torn_end(directory: Path) -> bool:
    """Cut the newest log behind its last whole record, if what follows was never written; return whether it was.

    What is cut off is kept beside it, as `NUMBER.torn`. A record that is wrong for any other reason stays, and
    stops the start as damage.
    """
    logs = sorted(directory.glob("*.log"), key=lambda path: int(path.stem) if path.stem.isdecimal() else -1)
    if not logs:
        return False
    log = logs[-1].read_bytes()
    end = _whole_until(log)
    if end is None:
        return False
    logs[-1].with_suffix(".torn").write_bytes(log[end:])
    descriptor = os.open(logs[-1], os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def _whole_until(log: bytes) -> int | None:
    """Return where the last whole record ends, if its follower reaches into zeros that end the file; else None.

    Zeros alone are no follower: RocksDB passes over them, and if it stops all the same, it is for another reason.
    """
    zeros_from = len(log.rstrip(b"\0"))
    if len(log) - zeros_from < _LEAST_ZEROS:
        return None
    whole = last = 0
    for at, end, kind in _fragments(log):
        if end > zeros_from:  # it reaches into the zeros: unless they are its own, it is the torn one
            return None if _is_sound(log, at, end) else whole
        if kind in (_WHOLE, _LAST):
            whole = end
        last = end
    return whole if whole < last else None


def _fragments(log: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each fragment's start, end and type, until a head of zeros."""
    at = 0
    while at + _HEAD_BYTES <= len(log):
        if _BLOCK_BYTES - at % _BLOCK_BYTES < _HEAD_BYTES:  # a block's rest that is too short for a head
            at += _BLOCK_BYTES - at % _BLOCK_BYTES
            continue
        end, kind = at + _HEAD_BYTES + int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        if kind == 0:
            return
        yield at, min(end, len(log)), kind
        at = end


def _is_sound(log: bytes, at: int, end: int) -> bool:
    checksum = _MASK
    for octet in log[at + 6 : end]:
        checksum ^= octet
        for _ in range(8):
            checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
    checksum ^= _MASK
    masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & _MASK
    return masked == int.from_bytes(log[at : at + 4], "little")
