"""The way to the host, which tells what has been written: an answer that waits in a buffer has not left yet."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TextIO

import anyio
import msgspec

__all__ = ["Outlet", "real_stdout"]


class _Line(msgspec.Struct):
    """Of a line to the host, what says whether it answers a request, and which."""

    id: str | int | None = None
    method: str | None = None


class _Told(Protocol):
    def left(self, request: str | int, /) -> None: ...
    def broke(self, request: str | int, /) -> None: ...


class Outlet(anyio.AsyncFile[str]):
    """The file that the SDK's writer fills, a line and a flush for each message; *told* hears of each answer's fate."""

    def __init__(self, file: TextIO, told: _Told) -> None:
        super().__init__(file)
        self._told = told
        self._answers: str | int | None = None

    async def write(self, line: str) -> int:
        """Write a line; it need not be out before the next flush."""
        read = msgspec.json.decode(line, type=_Line)
        self._answers = read.id if read.method is None else None
        with self._all_or_broken():
            return await super().write(line)

    async def flush(self) -> None:
        """Return when what was written is with the host, or in its pipe."""
        with self._all_or_broken():
            await super().flush()
        if self._answers is not None:
            self._told.left(self._answers)

    @contextmanager
    def _all_or_broken(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if self._answers is not None:
                self._told.broke(self._answers)
            raise


@contextmanager
def real_stdout() -> Iterator[TextIO]:
    """Give the host's pipe; meanwhile descriptor 1 is stderr, so that nothing that is printed breaks the protocol."""
    sys.stdout.flush()
    above_standard = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)  # where stderr is closed, dup would take its place
    wire = os.fdopen(above_standard, "w", encoding="utf-8", newline="\n")
    try:
        os.dup2(2, 1)
    except OSError:  # the host has closed stderr
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
    try:
        yield wire
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()  # what was printed meanwhile, before the pipe is back
        os.dup2(wire.fileno(), 1)
        with suppress(OSError):  # the host is gone, and what it did not get is not marked as shown
            wire.close()
