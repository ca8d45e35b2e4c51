"""An echo server on the relay's own transport, door and judgement of handshakes: what a conformance suite can drive.

The relay speaks binary frames of its own and echoes nothing, so only the shell behind `Handler` is another one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from picows import WSMsgType

from aimessage.clock import SystemClock
from aimessage.relay.config import load_config
from aimessage.relay.frames import Assembler, Breach
from aimessage.relay.http import Request, Response, Upgrade, route
from aimessage.relay.limits import BOUNDS, Bounds, LinkBucket, RelayLimits
from aimessage.relay.transport import Socket, listen
from aimessage.wire.limits import ANNOUNCED_MESSAGE_BYTES

__all__ = ["echoing"]

_SUITE_MESSAGE_BYTES = 16 << 20  # the largest that the suite sends
_PINGS_PER_SECOND = 10.0


class _TextAsBinary(Assembler):
    """Treats text frames as if they were binary, so that what is cut and joined can be seen with text as well."""

    is_text = False

    def data(self, payload: bytes, *, continuation: bool, text: bool, fin: bool) -> bytes | Breach | None:
        if not continuation:
            self.is_text = text
        return super().data(payload, continuation=continuation, text=False, fin=fin)


class _Echo:
    """The handler: sends back what came, in the same kind of message."""

    def __init__(self, assembler: Assembler | None) -> None:
        self._assembler = assembler
        self._socket: Socket | None = None
        self._pings = LinkBucket(_PINGS_PER_SECOND, SystemClock())

    def opened(self, socket: Socket) -> None:
        self._socket = socket
        if self._assembler is not None:
            socket._assembler = self._assembler

    def received(self, message: bytes) -> None:
        assert self._socket is not None
        transport = self._socket._transport
        if isinstance(self._assembler, _TextAsBinary) and self._assembler.is_text:
            if transport is not None and not transport.is_close_frame_sent:
                transport.send(WSMsgType.TEXT, message)
        else:
            self._socket.send(message)

    def writable(self) -> None:
        pass

    def closed(self) -> None:
        self._socket = None

    def allows_ping(self) -> bool:
        return self._pings.take() == 0.0


class _EchoJudge:
    """Lets everybody in whom the relay's rules for a handshake let in."""

    bounds: Bounds = BOUNDS
    limits: RelayLimits = load_config({}, {}).limits

    def __init__(self, tasks: asyncio.TaskGroup, *, as_it_is: bool) -> None:
        self._tasks = tasks
        self._as_it_is = as_it_is

    def admit_socket(self, peer: str) -> Response | None:
        return None

    def forget_socket(self, peer: str) -> None:
        pass

    def client_of(self, request: Request, peer: str) -> str:
        return peer

    async def judge(self, request: Request, address: str) -> Response | Upgrade:
        return route(request)

    def new_socket(self, address: str) -> Socket:
        size = ANNOUNCED_MESSAGE_BYTES if self._as_it_is else _SUITE_MESSAGE_BYTES
        assembler = None if self._as_it_is else _TextAsBinary(size)
        return Socket(_Echo(assembler), BOUNDS, self.limits, size)

    def own(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.create_task(work)


@asynccontextmanager
async def echoing(*, as_it_is: bool) -> AsyncIterator[str]:
    """Yield the address of an echo server.

    *as_it_is*: binary messages of at most what the relay announces, everything else is refused as the relay does it.
    Otherwise text is echoed too, and the bound is the suite's.
    """
    logging.getLogger("picows").setLevel(logging.CRITICAL)  # as the relay does: it tells every breach
    async with asyncio.TaskGroup() as tasks:
        server, port = await listen(_EchoJudge(tasks, as_it_is=as_it_is), "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{port}"
        finally:
            server.close()
