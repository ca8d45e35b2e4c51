"""The operator's door of a running relay: a Unix socket, one JSON line a request, one JSON line an answer.

Whoever may open the socket (mode 0600, in a directory of mode 0700 under the relay's data) may ask. What a request
opens, such as a snapshot, lives until its connection ends: a command that is killed leaves nothing behind.

    {"do": "snapshot"}   →   {"answer": {"name": "snapshot"}}   or   {"error": code, "message": …, "hint": …}
"""  # fmt: skip

import asyncio
import json
import os
import socket as sockets
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from aimessage.errors import (
    AimessageError,
    BadValue,
    ConfigInvalid,
    RelayUnavailable,
    StoreDamaged,
    Unsupported,
    error_from_code,
)
from aimessage.relay.limits import BOUNDS
from aimessage.stores.ports import Store

__all__ = ["Handler", "OperatorLine", "dial", "door_path", "operator_door", "store_requests"]

Handler = Callable[[Mapping[str, object], AsyncExitStack], Awaitable[Mapping[str, object]]]
"""Answers one kind of request; what it enters into the stack is left when the connection ends."""

_PATH_BYTES = 100  # a Unix address holds 107 on Linux, 103 elsewhere
_PROC = Path("/proc/self/fd")
_DIAL_SECONDS = 120.0  # how long a request may take; a snapshot waits for the disk


def door_path(db_path: Path) -> Path:
    """Return where the door of the relay on *db_path* is."""
    return db_path / "door" / "relay.sock"


def store_requests(store: Store) -> dict[str, Handler]:
    """Return what may be asked of any store."""

    async def snapshot(_: Mapping[str, object], held: AsyncExitStack) -> Mapping[str, object]:
        path = await held.enter_async_context(store.snapshot())
        return {"name": path.name}  # and not the path: the asker may see the same directory under another one

    return {"snapshot": snapshot}


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """The address of *path* while the context is open, however long it is. Raises ConfigInvalid, OSError."""
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield str(path)
        return
    if not _PROC.is_dir():
        raise ConfigInvalid(f"the path {path} is too long for a socket", hint="choose a shorter one with --db-path")
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield str(_PROC / str(directory) / path.name)
    finally:
        os.close(directory)


# The relay's side.


@asynccontextmanager
async def operator_door(
    db_path: Path, requests: Mapping[str, Handler], own: Callable[[Coroutine[None, None, None]], None]
) -> AsyncIterator[None]:
    """Answer *requests* while the context is open; *own* runs what each connection needs.

    Raises ConfigInvalid: the socket cannot be made, or another relay answers there.
    """
    path = door_path(db_path)
    try:
        socket = _bound(path)
    except OSError as error:
        raise ConfigInvalid(
            f"the operator's socket {path} cannot be made: {error.strerror}", hint="choose another --db-path"
        ) from None
    made = path.stat()
    door = _Door(requests, own)
    server = await asyncio.start_unix_server(door.opened, sock=socket, limit=BOUNDS.operator_request_bytes)
    try:
        yield
    finally:
        server.close()
        with suppress(FileNotFoundError):  # some event loops remove it themselves
            if (path.stat().st_dev, path.stat().st_ino) == (made.st_dev, made.st_ino):
                path.unlink()


def _bound(path: Path) -> sockets.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    _clear(path)
    socket = sockets.socket(sockets.AF_UNIX)
    try:
        with _address(path) as address:
            socket.bind(address)
        path.chmod(0o600)
        socket.listen(BOUNDS.operator_links)
    except BaseException:
        socket.close()
        raise
    return socket


def _clear(path: Path) -> None:
    """Remove the socket of a relay that is no more. Raises ConfigInvalid: there is one, or it is no socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigInvalid(f"{path} is not a socket of ours", hint="move it away and start again")
    except FileNotFoundError:
        return
    line = dial(path.parent.parent)
    if line is not None:
        line.close()
        raise ConfigInvalid(f"another relay answers at {path}", hint="stop it, or give this one its own --db-path")
    path.unlink(missing_ok=True)


class _Door:
    """Counts connections and answers their lines."""

    def __init__(self, requests: Mapping[str, Handler], own: Callable[[Coroutine[None, None, None]], None]) -> None:
        self._requests = requests
        self._own = own
        self._open = 0

    def opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """asyncio: somebody has connected."""
        if self._open >= BOUNDS.operator_links:
            writer.close()
        else:
            self._open += 1
            self._own(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with AsyncExitStack() as held:
                with suppress(ValueError, ConnectionError):  # a line over its bound, or nobody there any more
                    while line := await reader.readline():
                        writer.write(await self._answer(line, held))
                        await writer.drain()
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, line: bytes, held: AsyncExitStack) -> bytes:
        try:
            request = _parsed(line)
            handler = self._requests.get(str(request.get("do")))
            if handler is None:
                raise Unsupported("this relay does not know the request", hint="use the aimessage-server that runs")
            answer = json.dumps({"answer": await handler(request, held)}).encode() + b"\n"
            if len(answer) > BOUNDS.operator_answer_bytes:
                raise BadValue("the answer is too large", hint="ask for less")
        except StoreDamaged:  # not for the asker alone
            raise
        except AimessageError as error:
            failure = {"error": error.code, "message": error.message, "hint": error.hint}
            return json.dumps(failure).encode() + b"\n"
        return answer


def _parsed(line: bytes) -> Mapping[str, object]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise BadValue("a request is one JSON object on one line")
    return request


# The command's side.


class OperatorLine:
    """A connection to a running relay, for a command. Blocking; close it to release what it has asked for."""

    def __init__(self, socket: sockets.socket) -> None:
        self._socket = socket
        self._answers = socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, do: str, **arguments: object) -> dict[str, object]:
        """Return the answer to one request. Raises what the relay answers with, RelayUnavailable: it does not."""
        try:
            self._socket.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            line = self._answers.readline(BOUNDS.operator_answer_bytes + 1)
            answer = json.loads(line)
        except (OSError, ValueError):
            raise RelayUnavailable("the relay did not answer", hint="look into its log, then try again") from None
        if "error" in answer:
            error = error_from_code(str(answer["error"]), str(answer.get("message")))
            error.hint = answer.get("hint")
            raise error
        return dict(answer["answer"])

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self._socket.close()


def dial(db_path: Path) -> OperatorLine | None:
    """Return a line to the relay that runs on *db_path*, None if none does. Raises ConfigInvalid: not ours to ask."""
    socket = sockets.socket(sockets.AF_UNIX)
    socket.settimeout(_DIAL_SECONDS)
    try:
        with _address(door_path(db_path)) as address:
            socket.connect(address)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        socket.close()
        return None
    except OSError as error:
        socket.close()
        raise ConfigInvalid(
            f"the relay's socket {door_path(db_path)} cannot be opened: {error.strerror}",
            hint="run this as the user that the relay runs as",
        ) from None
    return OperatorLine(socket)
