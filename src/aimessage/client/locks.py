"""Locks that end with their process, whatever ends it: OS file locks, in the agent's own directory.

A lock file is never unlinked while somebody may wait for it; only the files that stand for one process's life are.
"""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aimessage.client.profile import make_directory
from aimessage.client.waiting import Waiting
from aimessage.crypto.random import system_entropy
from aimessage.errors import VaultUnavailable

__all__ = ["Living", "file_lock", "peer_lock", "take_lock"]

_POLL_SECONDS = 0.02
_NOTE_BYTES = 8
_OPENED = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def take_lock(path: Path) -> int | None:
    """Return a descriptor that holds the exclusive lock on *path* until it is closed; None if another holds it."""
    try:
        descriptor = os.open(path, _OPENED, 0o600)
    except FileNotFoundError:
        make_directory(path.parent)
        descriptor = os.open(path, _OPENED, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@asynccontextmanager
async def file_lock(path: Path, waiting: Waiting, *, patient: bool = True) -> AsyncIterator[None]:
    """Hold the exclusive lock on *path*, waiting for it as long as it takes.

    Raises VaultUnavailable: another has it, and the caller is not *patient*.
    """
    while (descriptor := take_lock(path)) is None:
        if not patient:
            raise VaultUnavailable("another command of this agent is at it")
        await waiting.pause(_POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def peer_lock(directory: Path, peer: str, waiting: Waiting, *, patient: bool = True) -> AsyncIterator[None]:
    """Be the only one of the agent in *directory*, in any process, who sends to *peer*.

    Those of one process take turns and need not ask the file again and again. Raises as `file_lock`.
    """
    async with (
        waiting.turn(f"peer-{peer}", patient=patient),
        file_lock(directory / "locks" / f"peer-{peer}", waiting, patient=patient),
    ):
        yield


class Living:
    """Names for those who work on one agent's vault, and whether they still live.

    A row that names its worker is free again when the worker's process has ended, in whatever way. A worker's file also
    holds its notes: numbers that outlive its process, though no power cut, and cost no commit.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._token = ""
        self._descriptor: int | None = None
        self._left_behind: list[str] = []

    @property
    def token(self) -> str:
        """Our own name, alive until `close`."""
        if self._descriptor is None:
            self._sweep()
            self._token = system_entropy(12).hex()
            self._descriptor = take_lock(self._path(self._token))
        return self._token

    def is_alive(self, token: str | None) -> bool:
        """Return whether whoever took this name still works."""
        if not token:
            return False
        if token == self._token and self._descriptor is not None:
            return True
        path = self._path(token)
        if not path.exists():
            return False
        descriptor = take_lock(path)
        if descriptor is None:
            return True
        if not os.fstat(descriptor).st_size:  # notes are kept until somebody has heeded them
            path.unlink(missing_ok=True)
        os.close(descriptor)
        return False

    def note(self, number: int) -> None:
        """Add *number* to our notes."""
        _ = self.token
        if self._descriptor is not None:
            os.write(self._descriptor, number.to_bytes(_NOTE_BYTES, "big"))

    def forget_notes(self) -> None:
        """What we noted has been committed."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)

    def notes_of(self, token: str | None) -> list[int]:
        """Return what a worker that has ended had noted."""
        try:
            octets = self._path(token).read_bytes() if token else b""
        except FileNotFoundError:
            octets = b""
        whole = len(octets) - len(octets) % _NOTE_BYTES
        return [int.from_bytes(octets[at : at + _NOTE_BYTES], "big") for at in range(0, whole, _NOTE_BYTES)]

    def bury(self, token: str | None) -> None:
        """The notes of a worker that has ended have been heeded, and that is committed."""
        if token and not (token == self._token and self._descriptor is not None):
            self._path(token).unlink(missing_ok=True)

    @property
    def has_left_behind(self) -> bool:
        """Whether `left_behind` would return anybody."""
        _ = self.token
        return bool(self._left_behind)

    def left_behind(self) -> list[str]:
        """Return, once, who had ended with notes before we began; whoever heeds them buries their workers."""
        _ = self.token
        found, self._left_behind = self._left_behind, []
        return found

    def _sweep(self) -> None:
        """Remove the names of those who were killed, but for their notes."""
        for path in (self._directory / "locks").glob("worker-*"):
            name = path.name.removeprefix("worker-")
            if not self.is_alive(name) and path.exists():
                self._left_behind.append(name)

    def close(self) -> None:
        """Give our name up."""
        if self._descriptor is not None:
            with suppress(OSError):  # the agent's directory may have been removed under us
                self._path(self._token).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def _path(self, token: str) -> Path:
        return self._directory / "locks" / f"worker-{token}"
