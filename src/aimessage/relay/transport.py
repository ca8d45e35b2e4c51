"""The one module that knows picows: sockets with all its guards, and the door that judges a handshake before it.

The door reads the HTTP head itself, so picows sees only canonical handshakes that are already accepted; behind it,
every socket is bounded in what it buffers, both ways.
"""

import asyncio
import logging
import socket as sockets
import ssl
from collections.abc import Coroutine
from typing import Protocol

from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # what ws_create_server itself builds

from aimessage.relay.frames import Assembler, Breach
from aimessage.relay.http import Request, Response, Upgrade, parse_request
from aimessage.relay.limits import Bounds, RelayLimits

__all__ = ["Door", "Handler", "Judge", "Socket", "listen"]

_GOING_AWAY = 1001
_NEVER_SENT = frozenset({0, 1006})  # RFC 6455 section 7.4: what stands for a missing code on this side of the wire
_LAST_CLOSE_CODE = 4999
_READ_BUFFER_BYTES = 1024  # of a link that only listens; it doubles with what comes, and a busy one keeps it
_IDLE, _REPLY = 0.55, 0.35  # of the heartbeat: a dead peer is found in nine tenths of what was announced


class Handler(Protocol):
    """What a socket tells its owner. Nothing here may raise or wait."""

    def opened(self, socket: "Socket") -> None:
        """The handshake is done."""
        ...

    def received(self, message: bytes) -> None:
        """One whole binary message came in."""
        ...

    def writable(self) -> None:
        """The write buffer has room again."""
        ...

    def closed(self) -> None:
        """The socket is gone; nothing follows."""
        ...

    def allows_ping(self) -> bool:
        """Whether one more ping may be answered."""
        ...


class Socket(WSListener):
    """One WebSocket of one peer."""

    __slots__ = ("_assembler", "_bounds", "_handler", "_held", "_limits", "_timer", "_transport", "message_bytes")

    def __init__(self, handler: Handler, bounds: Bounds, limits: RelayLimits, message_bytes: int) -> None:
        self._limits = limits
        self._handler = handler
        self._bounds = bounds
        self.message_bytes = message_bytes
        self._assembler = Assembler(message_bytes)
        self._transport: WSTransport | None = None
        self._held: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_writable(self) -> bool:
        """Whether the peer takes what we send."""
        return self._transport is not None and "stalled" not in self._held

    def send(self, message: bytes) -> None:
        """Write one binary message; does nothing on a closed socket."""
        if self._transport is not None and not self._transport.is_close_frame_sent:
            self._transport.send(WSMsgType.BINARY, message)

    def close(self, code: int = _GOING_AWAY, reason: str = "") -> None:
        """Send a close frame, and cut the connection soon if the peer does not answer it."""
        if self._transport is None or self._transport.is_close_frame_sent:
            return
        self._transport.send_close(WSCloseCode(code), reason.encode())
        self._abort_after(self._bounds.close_seconds)

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def hold(self, why: str) -> None:
        """Stop reading, for one of possibly several reasons."""
        if self._transport is not None and not self._held:
            self._transport.underlying_transport.pause_reading()
        self._held.add(why)

    def release(self, why: str) -> None:
        """Read again, if this was the last reason not to."""
        if why in self._held:
            self._held.discard(why)
            if self._transport is not None and not self._held:
                self._transport.underlying_transport.resume_reading()

    def on_ws_connected(self, transport: WSTransport) -> None:
        """picows: the handshake is done."""
        self._transport = transport
        transport.request.headers.clear()  # ours anyway, and picows keeps them as long as the link: 2 KiB
        transport.response.headers.clear()
        transport.underlying_transport.set_write_buffer_limits(high=self._bounds.write_buffer_bytes)
        self._handler.opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """picows: one frame, also after an error that it has already answered with a close frame."""
        if frame.msg_type is WSMsgType.CLOSE:
            self._answer_close(transport, frame)
        elif transport.is_close_frame_sent:
            return
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(1002, "reserved bits are set")
        elif frame.msg_type is WSMsgType.PING:
            if self._handler.allows_ping():
                transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type is not WSMsgType.PONG:
            self._data(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """picows: the connection is gone."""
        self._transport = None
        self._assembler.forget()
        self._cancel_timer()
        self._handler.closed()

    def pause_writing(self) -> None:
        """picows' write buffer has no bound: stop taking requests, and cut a peer that stays like this."""
        self.hold("stalled")
        if self._limits.stall_seconds:
            self._abort_after(self._limits.stall_seconds)

    def resume_writing(self) -> None:
        """The buffer has drained."""
        if self._transport is not None and not self._transport.is_close_frame_sent:
            self._cancel_timer()
        self.release("stalled")
        self._handler.writable()

    def _data(self, frame: WSFrame) -> None:
        message = self._assembler.data(
            frame.get_payload_as_bytes(),
            continuation=frame.msg_type is WSMsgType.CONTINUATION,
            text=frame.msg_type is WSMsgType.TEXT,
            fin=bool(frame.fin),
        )
        if isinstance(message, Breach):
            self.close(message.code, message.reason)
        elif message is not None:
            self._handler.received(message)

    def _answer_close(self, transport: WSTransport, frame: WSFrame) -> None:
        if not transport.is_close_frame_sent:
            transport.send_close(_close_answer(frame))
        transport.disconnect()
        self._abort_after(self._bounds.close_seconds)

    def _abort_after(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _close_answer(frame: WSFrame) -> WSCloseCode:
    """Echo the code of a close frame; picows lets through reserved bits and some codes that no peer may send."""
    if frame.rsv1 or frame.rsv2 or frame.rsv3:
        return WSCloseCode.PROTOCOL_ERROR
    if frame.payload_size == 0:
        return WSCloseCode.OK
    code = frame.get_close_code()
    return WSCloseCode.PROTOCOL_ERROR if code.value in _NEVER_SENT or code.value > _LAST_CLOSE_CODE else code


class Judge(Protocol):
    """Decides about requests; the service behind every door."""

    bounds: Bounds
    limits: RelayLimits

    def admit_socket(self, peer: str) -> Response | None:
        """Count one more socket that is not logged in; if there are too many, return what to answer."""
        ...

    def forget_socket(self, peer: str) -> None:
        """Undo admit_socket."""
        ...

    def client_of(self, request: Request, peer: str) -> str:
        """Return the address that answers for *request*, which came from the socket of *peer*."""
        ...

    async def judge(self, request: Request, address: str) -> Response | Upgrade:
        """Return the answer, or the upgrade."""
        ...

    def new_socket(self, address: str) -> Socket:
        """Return the socket, with its handler, for an accepted upgrade."""
        ...

    def own(self, work: Coroutine[None, None, None]) -> None:
        """Run *work* in the service's task group."""
        ...


class Door(asyncio.Protocol):
    """Reads one HTTP head, bounded in size and time; answers it, or hands the connection over to picows."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peer = ""
        self._counted = False
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer has connected."""
        self._transport = transport  # type: ignore[assignment]  # asyncio passes a Transport, typed as its base
        self._peer = (transport.get_extra_info("peername") or ("",))[0]
        refusal = self._judge.admit_socket(self._peer)
        self._counted = refusal is None
        # A refused peer gets its time too: it may not read what we answer.
        seconds = self._judge.limits.login_seconds or (0 if self._counted else self._judge.bounds.close_seconds)
        if seconds:
            self._timer = asyncio.get_running_loop().call_later(seconds, transport.abort)  # type: ignore[attr-defined]
        if refusal is not None:
            self._answer(refusal)

    def data_received(self, data: bytes) -> None:
        """Bytes of the head, and perhaps behind it."""
        if self._answered or self._transport is None:
            return
        self._received += data
        head, end, tail = bytes(self._received).partition(b"\r\n\r\n")
        if len(head) > self._judge.bounds.request_bytes:
            self._answer(Response(431, b"the request head is too large\n"))
        elif end:
            self._transport.pause_reading()
            self._answered = True
            self._judge.own(self._judged(head, tail))

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer has gone."""
        self._leave()
        self._transport = None

    async def _judged(self, head: bytes, tail: bytes) -> None:
        request = parse_request(head)
        if request is None:
            self._answer(Response(400, b"this is not an HTTP request\n"))
            return
        address = self._judge.client_of(request, self._peer)
        verdict = await self._judge.judge(request, address)
        if isinstance(verdict, Response):
            self._answer(verdict, head_only=request.method == "HEAD")
        elif self._transport is not None and not self._transport.is_closing():
            self._hand_over(self._transport, verdict, tail, address)

    def _answer(self, response: Response, *, head_only: bool = False) -> None:
        self._answered = True
        if self._transport is not None:
            self._transport.write(response.encode(head_only=head_only))
            self._transport.close()

    def _hand_over(self, transport: asyncio.Transport, upgrade: Upgrade, tail: bytes, address: str) -> None:
        """From here on picows owns the connection, and the link counts as not logged in by itself."""
        protocol = _picows(self._judge.new_socket(address), upgrade, self._judge.limits.heartbeat_seconds)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        _feed(protocol, _canonical(upgrade.key) + tail)
        self._leave()
        if not transport.is_closing():
            transport.resume_reading()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._counted:
            self._counted = False
            self._judge.forget_socket(self._peer)


def _canonical(key: str) -> bytes:
    return (
        "GET / HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode("ascii")


def _feed(protocol: WSProtocol, octets: bytes) -> None:
    while octets:
        buffer = protocol.get_buffer(len(octets))
        count = min(len(buffer), len(octets))
        buffer[:count] = octets[:count]
        protocol.buffer_updated(count)
        octets = octets[count:]


def _picows(socket: Socket, upgrade: Upgrade, heartbeat_seconds: float) -> WSProtocol:
    def accept(_: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(upgrade.headers), socket)

    # The arguments of picows.api.ws_create_server, in its order: host and path (client side), role, factory, logger,
    # disconnect_on_exception, handshake timeout, auto ping, idle, reply, strategy, auto pong, frame bound, headers,
    # read buffer.
    return WSProtocol(
        None, None, False, accept, logging.getLogger("picows.server"), True, 5,
        heartbeat_seconds > 0, heartbeat_seconds * _IDLE, heartbeat_seconds * _REPLY,
        WSAutoPingStrategy.PING_WHEN_IDLE, False,
        socket.message_bytes, None, _READ_BUFFER_BYTES,
    )  # fmt: skip


async def listen(judge: Judge, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[asyncio.Server, int]:
    """Return the listening server and its real port. Raises OSError: the address cannot be had."""

    def new_door() -> Door:
        return Door(judge)

    # A handshake that does not come to its end is no socket of ours yet: time alone bounds it.
    seconds = (judge.limits.login_seconds or None) if tls is not None else None
    server = await asyncio.get_running_loop().create_server(
        new_door, host, port, backlog=1024, ssl=tls, ssl_handshake_timeout=seconds
    )
    bound: sockets.socket = server.sockets[0]
    return server, int(bound.getsockname()[1])
