"""The client's half of RFC 6455 as a sans-I/O machine: one subprotocol, binary messages, no extension.

It exists for the cold start of a command: the smallest library for this costs 33 ms to import, a quarter of a whole
`send`. The tests hold it against that library, in both directions, and feed both the same bytes.
"""

from base64 import b64encode
from collections.abc import Callable

import msgspec

from aimessage.errors import RemoteProtocolError

__all__ = ["ClientWebSocket", "SocketClosed", "SocketFailed", "SocketOpened", "SocketRefused"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_HEAD_BYTES = 16_384
_CONTROL_BYTES = 125
_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA
_FIN, _MASKED = 0x80, 0x80
_SHORT, _LONG = 126, 127


class SocketOpened(msgspec.Struct, frozen=True):
    """The server has agreed; messages may follow."""


class SocketRefused(msgspec.Struct, frozen=True):
    """The server speaks HTTP and does not agree: its status, and when to come again, in seconds, if it said so."""

    status: int
    retry_after: str


class SocketFailed(msgspec.Struct, frozen=True):
    """What came is not what a server of this protocol sends; close the connection."""

    reason: str


class SocketClosed(msgspec.Struct, frozen=True):
    """The server said goodbye, with a close code (1005: none)."""

    code: int


class ClientWebSocket:
    """One connection. Feed `receive_data`, act on `events_received`, write `data_to_send`; nothing here raises for
    what a server does.

    *sha1* is the hash of the handshake, *entropy* gives its key and the mask of each frame, *message_bytes* bounds a
    message that comes in.
    """

    def __init__(
        self,
        host: str,
        target: str,
        subprotocol: str,
        *,
        sha1: Callable[[bytes], bytes],
        entropy: Callable[[int], bytes],
        message_bytes: int,
    ) -> None:
        self._subprotocol = subprotocol
        self._entropy = entropy
        self._message_bytes = message_bytes
        encoded = b64encode(entropy(16))
        self._accept = b64encode(sha1(encoded + _GUID)).decode()
        self._incoming = bytearray()
        self._message: bytearray | None = None
        self._is_open = self._is_over = False
        self._events: list[bytes | SocketOpened | SocketRefused | SocketFailed | SocketClosed] = []
        lines = (
            f"GET {target} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {encoded.decode()}",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {subprotocol}",
        )
        self._outgoing = bytearray("\r\n".join(lines).encode("ascii") + b"\r\n\r\n")

    def data_to_send(self) -> bytes:
        """Return the bytes to write, and forget them."""
        outgoing, self._outgoing = bytes(self._outgoing), bytearray()
        return outgoing

    def send(self, message: bytes) -> None:
        """Queue one binary message. Raises RemoteProtocolError: the connection is not open."""
        if not self._is_open or self._is_over:
            raise RemoteProtocolError("the connection is not open")
        self._frame(_BINARY, message)

    def receive_data(self, data: bytes) -> None:
        """Feed bytes from the network; then call events_received() and data_to_send()."""
        self._incoming += data
        try:
            while not self._is_over and (self._take_frame() if self._is_open else self._take_head()):
                pass
        except RemoteProtocolError as error:
            self._is_over = True
            self._events.append(SocketFailed(error.message))

    def events_received(self) -> list[bytes | SocketOpened | SocketRefused | SocketFailed | SocketClosed]:
        """Return what came since the last call, in order; bytes are whole messages."""
        events, self._events = self._events, []
        return events

    def _frame(self, opcode: int, payload: bytes) -> None:
        size, mask = len(payload), self._entropy(4)
        if size < _SHORT:
            length = bytes((_MASKED | size,))
        elif size < 1 << 16:
            length = bytes((_MASKED | _SHORT,)) + size.to_bytes(2, "big")
        else:
            length = bytes((_MASKED | _LONG,)) + size.to_bytes(8, "big")
        self._outgoing += bytes((_FIN | opcode,)) + length + mask + _xor(payload, mask)

    def _take_head(self) -> bool:
        end = self._incoming.find(b"\r\n\r\n")
        if end < 0 or end > _HEAD_BYTES:
            if len(self._incoming) > _HEAD_BYTES:
                raise RemoteProtocolError("the answer's head has no end")
            return False
        status_line, *lines = bytes(self._incoming[:end]).decode("latin-1").split("\r\n")
        del self._incoming[: end + 4]
        version, _, rest = status_line.partition(" ")
        status = rest[:3]
        if (
            not version.startswith("HTTP/1.")
            or not (status.isascii() and status.isdigit())
            or rest[3:4] not in ("", " ")
        ):
            raise RemoteProtocolError("the answer is not HTTP")
        headers = _headers(lines)
        if status != "101":
            self._is_over = True
            self._events.append(SocketRefused(int(status), headers.get("retry-after", "")))
            return False
        self._judge(headers)
        self._is_open = True
        self._events.append(SocketOpened())
        return True

    def _judge(self, headers: dict[str, str]) -> None:
        options = [option.strip().lower() for option in headers.get("connection", "").split(",")]
        if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in options:
            raise RemoteProtocolError("the answer switches to another protocol")
        if headers.get("sec-websocket-accept") != self._accept:
            raise RemoteProtocolError("the answer is to another handshake")
        if headers.get("sec-websocket-protocol") != self._subprotocol or "sec-websocket-extensions" in headers:
            raise RemoteProtocolError("the answer speaks another subprotocol")

    def _take_frame(self) -> bool:
        """Take one whole frame, if it is there. Raises RemoteProtocolError: no server may send it (§5)."""
        data = self._incoming
        if len(data) < 2:
            return False
        opcode, size, start = data[0] & 0x0F, data[1] & 0x7F, 2
        if data[0] & 0x70 or data[1] & _MASKED:
            raise RemoteProtocolError("a frame with reserved bits, or masked by a server")
        if opcode >= _CLOSE and (size > _CONTROL_BYTES or not data[0] & _FIN):
            raise RemoteProtocolError("a control frame that is long or fragmented")
        if size >= _SHORT:
            start = 4 if size == _SHORT else 10
            if len(data) < start:
                return False
            size = int.from_bytes(data[2:start], "big")
        if size + len(self._message or b"") > self._message_bytes:
            raise RemoteProtocolError("a message that is larger than announced")
        if len(data) < start + size:
            return False
        payload, is_last = bytes(data[start : start + size]), bool(data[0] & _FIN)
        del data[: start + size]
        self._take_payload(opcode, payload, is_last=is_last)
        return True

    def _take_payload(self, opcode: int, payload: bytes, *, is_last: bool) -> None:
        if opcode == _PING:
            self._frame(_PONG, payload)
        elif opcode == _CLOSE:
            self._take_close(payload)
        elif opcode == (_BINARY if self._message is None else _CONTINUATION):
            self._message = (self._message or bytearray()) + payload
            if is_last:
                self._events.append(bytes(self._message))
                self._message = None
        elif opcode != _PONG:
            raise RemoteProtocolError("a frame that is not expected here")

    def _take_close(self, payload: bytes) -> None:
        if len(payload) == 1:
            raise RemoteProtocolError("a farewell with half a code")
        self._is_over = True
        self._frame(_CLOSE, payload[:2])
        self._events.append(SocketClosed(int.from_bytes(payload[:2], "big") if payload else 1005))


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if (
            not colon
            or not name
            or name != name.strip()
            or (name.lower() in headers and name.lower().startswith("sec-"))
        ):
            raise RemoteProtocolError("the answer's head is malformed")
        headers[name.lower()] = value.strip()
    return headers


def _xor(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(pattern, "little")).to_bytes(size, "little")
