"""A real relay on loopback, and peers that drive it over real sockets with nothing but frames."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.e2ee.identity import Account, Token, open_account, prove, prove_registration
from aimessage.e2ee.prekeys import make_bundle
from aimessage.relay.config import RelayConfig, load_config
from aimessage.relay.service import serving
from aimessage.types import Address, RelayId, SecretBytes, Username, VaultId
from aimessage.wire.bundles import Bundle
from aimessage.wire.frames import (
    ClientFrame,
    Prove,
    Proved,
    Refused,
    Register,
    RelayFrame,
    Subscribe,
    Subscribed,
    Welcome,
)
from aimessage.wire.link import ClientLink, LinkFailed

HOST = "127.0.0.1"
_FrameT = TypeVar("_FrameT", bound=RelayFrame)


def relay_config(tmp_path: Path, **flags: str) -> RelayConfig:
    """Return a configuration for tests: a free port, memory, no rates unless given."""
    given = {"port": "0", "store": "memory", "rate_global": "0", "rate_connection": "0", "db_path": str(tmp_path)}
    return load_config({**given, **flags}, {})


@asynccontextmanager
async def running_relay(tmp_path: Path, **flags: str) -> AsyncIterator[str]:
    """Run a relay in this loop and yield its ws:// address."""
    async with serving(relay_config(tmp_path, **flags), clock=SystemClock(), entropy=system_entropy) as service:
        yield f"ws://{HOST}:{service.port}"


class _Wire(WSListener):
    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.close_code: int | None = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            self.close_code = int(frame.get_close_code().value)
            transport.disconnect()
        elif frame.msg_type is WSMsgType.BINARY:
            self.messages.put_nowait(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.messages.put_nowait(None)


class Peer:
    """One agent's link, frame by frame."""

    def __init__(
        self,
        url: str,
        name: str,
        secret: bytes | None = None,
        *,
        source: str = HOST,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url
        self.tls = tls
        self.source = source
        self.name = name
        self.secret = secret or system_entropy(32)
        self.vault_id = VaultId(system_entropy(16))
        self.link = ClientLink()
        self.frames: list[RelayFrame] = []
        self.over = False
        self._next_id = 0

    async def __aenter__(self) -> Self:
        self.transport, self.wire = await ws_connect(
            _Wire, self.url, ssl_context=self.tls, use_aiofastnet=False, local_addr=(self.source, 0)
        )
        self.welcome = await self.expect(Welcome)
        address = Address(RelayId(self.welcome.relay_id), Username(self.name))
        self.account: Account = open_account(Token(SecretBytes(self.secret)), address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.transport.disconnect()
        await self.transport.wait_disconnected()

    @property
    def close_code(self) -> int | None:
        """The close code that the relay sent."""
        assert isinstance(self.wire, _Wire)
        return self.wire.close_code

    def next_id(self) -> int:
        """Return a fresh request id."""
        self._next_id += 1
        return self._next_id

    def bundle(self, epoch: int = 1) -> Bundle:
        """Return a fresh signed bundle of this peer."""
        return make_bundle(
            self.account, vault_id=self.vault_id, epoch=epoch, now=datetime.now(UTC), entropy=system_entropy
        )[0]

    def send(self, *frames: ClientFrame) -> None:
        """Send frames as one message."""
        self.link.send(frames)
        self.flush()

    def raw(self, message: bytes) -> None:
        """Send any bytes as one message."""
        self.transport.send(WSMsgType.BINARY, message)

    def flush(self) -> None:
        """Write what the machine has queued."""
        for message in self.link.data_to_send():
            self.raw(message)

    async def register(self, host: str = HOST, *, invite: str = "") -> Proved | Refused:
        """Register this name and return the relay's verdict."""
        nonce = system_entropy(32)
        signature = prove_registration(
            self.account, host, relay_nonce=self.welcome.nonce, client_nonce=nonce, vault_id=self.vault_id
        )
        bundle = self.bundle().encode()
        self.link.prove(Register(self.name, host, nonce, self.vault_id, signature, bundle, invite))
        self.flush()
        return await self.expect(Proved, Refused)

    async def login(self, host: str = HOST, *, spoil: bool = False) -> Proved | Refused:
        """Prove this identity and return the relay's verdict."""
        nonce = system_entropy(32)
        signature = prove(
            self.account, host, relay_nonce=self.welcome.nonce, client_nonce=nonce, vault_id=self.vault_id
        )
        proof = Prove(self.name, host, nonce, self.vault_id, signature)
        self.link.prove(replace_signature(proof) if spoil else proof)
        self.flush()
        return await self.expect(Proved, Refused)

    async def subscribe(self, generation: int = 1) -> Subscribed | Refused:
        """Subscribe and return the answer."""
        self.send(Subscribe(self.next_id(), self.vault_id, generation))
        return await self.expect(Subscribed, Refused)

    async def expect(self, *kinds: type[_FrameT]) -> _FrameT:
        """Return the next frame of one of these kinds; others are kept in `frames` for later calls."""
        async with asyncio.timeout(60):
            while True:
                for frame in self.frames:
                    if isinstance(frame, kinds):
                        self.frames.remove(frame)
                        return frame
                assert not self.over, f"the link ended before {kinds}"
                await self._receive()

    async def arrived(self) -> list[RelayFrame]:
        """Return what has come, waiting for the next message; nothing if the link is over."""
        await self._receive()
        frames, self.frames = self.frames, []
        return frames

    async def ended(self) -> None:
        """Wait until the relay has closed the link."""
        async with asyncio.timeout(60):
            while not self.over:
                await self._receive()

    async def _receive(self) -> None:
        assert isinstance(self.wire, _Wire)
        message = await self.wire.messages.get()
        if message is None:
            self.over = True
            return
        self.link.receive_message(message)
        for event in self.link.events_received():
            assert not isinstance(event, LinkFailed), event
            self.frames.append(event)


def replace_signature(proof: Prove) -> Prove:
    """Return *proof* with one bit of its signature flipped."""
    spoilt = bytes([proof.signature[0] ^ 1]) + proof.signature[1:]
    return Prove(proof.username, proof.host, proof.client_nonce, proof.vault_id, spoilt)


async def http(url: str, request: bytes) -> bytes:
    """Send raw bytes and return everything that comes back until the relay closes."""
    port = int(url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def get(
    path: str, *headers: str, method: str = "GET", version: str = "1.1", host: Sequence[str] = ("Host: x",)
) -> bytes:
    """Return the bytes of one request."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", *host, *headers, "", ""]).encode()
