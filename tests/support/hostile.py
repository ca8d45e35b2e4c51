"""A relay that lets agents in as the pinned one does, and then does what the test says."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from aimessage.types import RelayId
from aimessage.wire.frames import ClientFrame, Prove, Proved, Welcome
from aimessage.wire.limits import Limits
from aimessage.wire.link import RelayLink

__all__ = ["Then", "hostile"]

Then = Callable[[RelayLink, ClientFrame], bytes | None]


class _Hostile(WSListener):
    """Greets as the pinned relay does, believes every proof, and then does what the test says."""

    def __init__(self, relay_id: RelayId, then: Then) -> None:
        self._link = RelayLink()
        self._relay_id = relay_id
        self._then = then

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._link.greet(Welcome(bytes(32), self._relay_id, "hostile", "0", 0, Limits(requests_per_second=0), []))
        self._flush(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.BINARY:
            return
        self._link.receive_message(frame.get_payload_as_bytes())
        for event in self._link.events_received():
            if isinstance(event, Prove):
                self._link.admit(Proved(0, 0, b""))
            raw = self._then(self._link, event)  # type: ignore[arg-type]  # only frames that we know come here
            self._flush(transport)
            if raw is not None:
                transport.send(WSMsgType.BINARY, raw)

    def _flush(self, transport: WSTransport) -> None:
        for message in self._link.data_to_send():
            transport.send(WSMsgType.BINARY, message)


@asynccontextmanager
async def hostile(relay_id: RelayId, then: Then, subprotocol: str | None = "aimessage.v1") -> AsyncIterator[str]:
    """Run one that answers each frame with *then*, which may send frames on the link or return raw bytes to send."""
    headers = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol is not None else None

    def accept(_: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), _Hostile(relay_id, then))

    server = await ws_create_server(accept, "127.0.0.1", 0, use_aiofastnet=False)
    yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()
