"""The high-water mark of `--paranoid-durability`: how far the store had come when something was last answered.

A write-ahead log that was cut at the end of a record looks like one that ended there. The mark lies in a file of its
own and is written after each commit and before its answers: so mark ≤ store always, and acknowledged ⇒ marked. Two
slots take turns, so that a write torn by a crash spoils only a mark that nobody was answered by.
"""

import hashlib
import os
from pathlib import Path

from aimessage.errors import RelayUnavailable, StoreDamaged
from aimessage.octets import u64

__all__ = ["MARK_NAME", "HighWaterMark"]

MARK_NAME = "high-water-mark"
_SLOT_BYTES = 4096  # one sector each, of any disk
_MARK_BYTES = 16


class HighWaterMark:
    """The mark of the store in *directory*; belongs to the thread that writes to the store.

    Raises StoreDamaged: there is a mark, and neither slot of it reads. Raises RelayUnavailable: the file system fails.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / MARK_NAME
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unavailable(error) from None
        try:
            self._reached, self._slot = self._read()
        except BaseException:
            os.close(self._file)
            raise

    def check(self, sequence: int) -> None:
        """Compare with the store's last *sequence* number, and go on from there.

        Raises StoreDamaged: changes that were acknowledged are missing.
        """
        if sequence < self._reached:
            raise StoreDamaged(
                f"the store {self._path.parent} has lost its end: {self._reached - sequence} changes are missing "
                f"(it reads up to change {sequence}, and change {self._reached} was acknowledged)",
                hint=f"restore the last backup; or accept the loss by removing {self._path}",
            )
        if self._reached != sequence:
            self.advance(sequence)

    def advance(self, sequence: int) -> None:
        """Put the mark at *sequence*; it is on disk when this returns. Raises RelayUnavailable."""
        slot = 1 - self._slot
        try:
            os.pwrite(self._file, _sealed(sequence), slot * _SLOT_BYTES)
            os.fdatasync(self._file)
        except OSError as error:
            raise self._unavailable(error) from None
        self._slot, self._reached = slot, sequence

    def close(self) -> None:
        """Release the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self) -> tuple[int, int]:
        """Return the higher mark and its slot; those of a new file, which is made whole on disk here, are zero."""
        try:
            octets = os.pread(self._file, 2 * _SLOT_BYTES, 0)
            if not any(octets):
                self._make()
        except OSError as error:
            raise self._unavailable(error) from None
        slots = [_opened(octets[at : at + _MARK_BYTES]) for at in (0, _SLOT_BYTES)]
        found = [(reached, slot) for slot, reached in enumerate(slots) if reached is not None]
        if not found:
            raise StoreDamaged(
                f"the mark {self._path} does not read", hint="compare the store with a backup, then remove the mark"
            )
        return max(found)

    def _make(self) -> None:
        """Take both sectors now: later marks overwrite them and need no space."""
        os.pwrite(self._file, bytes(2 * _SLOT_BYTES), 0)
        os.fsync(self._file)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _unavailable(self, error: OSError) -> RelayUnavailable:
        return RelayUnavailable(f"the mark {self._path} cannot be written: {error.strerror}")


def _sealed(sequence: int) -> bytes:
    return u64(sequence) + hashlib.sha256(u64(sequence)).digest()[:8]


def _opened(octets: bytes) -> int | None:
    """Return the mark of one slot, None if it does not read; one that was never written is zero."""
    sequence = int.from_bytes(octets[:8], "big")
    return sequence if octets == _sealed(sequence) or not any(octets) else None
