"""One network connection to the relay: a picows shell round the link machine. Requests become awaitable answers."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

from picows import (
    WSError,
    WSFrame,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeResponse,
    ws_connect,
)
from python_socks import ProxyError

from aimessage.client.dialling import Dialling, Route, dialled_host
from aimessage.client.links import GREETING_SECONDS, SUBPROTOCOL, Paces, judge, lots, refusal, turned_away
from aimessage.errors import (
    AimessageError,
    LinkLost,
    NotARelay,
    RelayUnreachable,
)
from aimessage.types import Username
from aimessage.wire.frames import (
    BundleAnswer,
    Bye,
    ClientFrame,
    FetchBundle,
    Prove,
    Proved,
    Refused,
    Register,
    RelayFrame,
    Welcome,
)
from aimessage.wire.limits import ANNOUNCED_MESSAGE_BYTES
from aimessage.wire.link import ClientLink, LinkFailed

__all__ = ["Link", "dialled_host", "open_link"]

_AnswerT = TypeVar("_AnswerT")
_EXPECTED_SECONDS = 2.0  # how long a bundle that was asked for in advance is good


def _heed(asking: "asyncio.Future[BundleAnswer]") -> None:
    """What came of it concerns whoever takes it; if nobody does, nobody."""
    if not asking.cancelled():
        asking.exception()


@dataclass(eq=False)
class Link(WSListener):
    """An open link; `lost` is done when it is gone.

    `on_push` gets every frame that answers no request, and may raise QueueFull: then the link is ended.
    """

    on_push: Callable[[RelayFrame], None]
    _machine: ClientLink = field(default_factory=ClientLink)
    _transport: WSTransport | None = None
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _waiting: dict[int, "asyncio.Future[RelayFrame | AimessageError]"] = field(default_factory=dict)
    _paces: Paces = field(default_factory=Paces)
    _expected: dict[Username, "asyncio.Future[BundleAnswer]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[Welcome] = loop.create_future()
        self.proved: asyncio.Future[Proved] = loop.create_future()
        self.lost: asyncio.Future[AimessageError] = loop.create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        """picows: the handshake is done."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """picows: one WebSocket frame; the relay never fragments."""
        if frame.msg_type is WSMsgType.BINARY and frame.fin:
            self._machine.receive_message(frame.get_payload_as_bytes())
            for event in self._machine.events_received():
                self._handle(event)
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """picows: the connection is gone."""
        self._transport = None
        self._fail(LinkLost("the connection to the relay broke"))

    @property
    def is_connected(self) -> bool:
        """Whether the WebSocket is open; the relay may not have greeted yet."""
        return self._transport is not None

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent on it any more."""
        return self.lost.done()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.disconnect()

    async def prove(self, proof: Prove | Register) -> Proved:
        """Log in. Raises what the relay refuses with, or LinkLost."""
        if self.lost.done():  # refused in the very message that greeted
            raise self.lost.result()
        self._machine.prove(proof)
        self._flush()
        return await self._or_lost(self.proved)

    async def request(self, build: Callable[[int], ClientFrame], answer: type[_AnswerT]) -> _AnswerT:
        """Send one request and return its answer.

        Raises the error that the relay refuses with, or LinkLost.
        """
        [result] = await self.request_all([build], answer)
        if isinstance(result, AimessageError):
            raise result
        return result

    def expect_bundle(self, recipient: Username) -> None:
        """Ask for *recipient*'s bundle now: whoever wants it soon need not wait for it."""
        if recipient not in self._expected:
            asking = asyncio.ensure_future(self._look_up(recipient))
            asking.add_done_callback(_heed)
            self._expected[recipient] = asking
            asyncio.get_running_loop().call_later(_EXPECTED_SECONDS, self._expected.pop, recipient, None)

    async def bundle(self, recipient: Username) -> BundleAnswer:
        """Look *recipient*'s bundle up, with a one-time pair. Raises as `request`."""
        expected = self._expected.pop(recipient, None)
        return await (expected or self._look_up(recipient))

    async def _look_up(self, recipient: Username) -> BundleAnswer:
        return await self.request(lambda request_id: FetchBundle(request_id, recipient), BundleAnswer)

    @property
    def body_bytes(self) -> int:
        """The largest padded body that the relay takes."""
        return self._paces.body_bytes

    def room(self, *, receipts: bool = False) -> int:
        """Return how many requests (or *receipts*) may go now without waiting for the relay's pace; at least one."""
        return self._paces.room(asyncio.get_running_loop().time(), receipts=receipts)

    async def request_all(
        self, builds: Sequence[Callable[[int], ClientFrame]], answer: type[_AnswerT]
    ) -> list[_AnswerT | AimessageError]:
        """Send several requests at once and return what came of each, in order: its answer, or its error.

        Raises LinkLost: nothing was sent.
        """
        loop = asyncio.get_running_loop()
        waiting: dict[int, asyncio.Future[RelayFrame | AimessageError]] = {
            next(self._ids): loop.create_future() for _ in builds
        }
        frames = [build(request_id) for build, request_id in zip(builds, waiting, strict=True)]
        delay = self._paces.take(frames, loop.time())
        if delay:
            await asyncio.sleep(delay)
        self._waiting |= waiting
        try:
            for lot in lots(frames):
                self._tell(lot)
            answers = [await future for future in waiting.values()]
            return [each if isinstance(each, AimessageError) else judge(each, answer) for each in answers]
        finally:
            for request_id in waiting:
                del self._waiting[request_id]

    def tell(self, frame: ClientFrame) -> None:
        """Send one frame that has no answer. Raises LinkLost."""
        self._tell([frame])

    def _tell(self, frames: Sequence[ClientFrame]) -> None:
        if self.lost.done():
            raise LinkLost("the connection to the relay broke")
        self._machine.send(frames)
        self._flush()

    async def _or_lost(self, future: "asyncio.Future[_AnswerT]") -> _AnswerT:
        await asyncio.wait({future, cast("asyncio.Future[_AnswerT]", self.lost)}, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise self.lost.result()

    def _flush(self) -> None:
        for message in self._machine.data_to_send():
            if self._transport is not None:
                self._transport.send(WSMsgType.BINARY, message)

    def _handle(self, event: RelayFrame | LinkFailed) -> None:
        match event:
            case LinkFailed(reason=reason):
                self._fail(NotARelay(f"the relay broke the protocol: {reason}"))
            case Welcome():
                self._paces.announced(event.limits, asyncio.get_running_loop().time())
                if not self.welcome.done():  # whoever waited may have gone
                    self.welcome.set_result(event)
            case Proved():
                if not self.proved.done():
                    self.proved.set_result(event)
            case Refused(id=0) | Bye():
                self._fail(refusal(event))
            case _ if (waiting := self._waiting.get(getattr(event, "id", 0))) and not waiting.done():
                waiting.set_result(event)
            case _:
                self._push(event)

    def _push(self, event: RelayFrame) -> None:
        try:
            self.on_push(event)
        except asyncio.QueueFull:
            self._fail(NotARelay("the relay sends more than it is acknowledged"))

    def _fail(self, error: AimessageError) -> None:
        if not self.lost.done():
            self.lost.set_result(error)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(self.lost.result())
        if self._transport is not None:
            self._transport.disconnect()


async def open_link(
    server: str, on_push: Callable[[RelayFrame], None], dialling: Dialling | None = None
) -> tuple[Link, Welcome]:
    """Connect and wait for the relay's greeting; say so if others on the way can read along.

    Raises RelayUnreachable; NotARelay: something else answers there; CertificateRefused; ProxyRefused; BadValue,
    ConfigInvalid: a setting that nothing can be dialled with.
    """
    way = dialling or Dialling()
    route = way.route(server)
    link = Link(on_push)
    try:
        async with asyncio.timeout(GREETING_SECONDS):
            await _connect(link, route)
            welcome = await link._or_lost(link.welcome)  # noqa: SLF001 - the same module's
    except TimeoutError as error:
        if link.is_connected:
            raise NotARelay(f"what answers at {server} speaks WebSocket, but is not an AI Message relay") from None
        raise route.explain(error) from None
    except WSError as error:
        answer = error.response if isinstance(error, WSInvalidStatusError) else None
        raise _turned_away(server, answer) from None
    except LinkLost:
        raise NotARelay(f"what answers at {server} closed the connection without a greeting") from None
    except ProxyError as error:
        raise route.explain_proxy(str(error)) from None
    except OSError as error:
        raise route.explain(error) from None
    finally:
        if not link.welcome.done():
            link.welcome.cancel()
            with contextlib.suppress(asyncio.InvalidStateError):
                link.close()
    if route.is_readable:  # nothing of ours has gone out yet
        way.notice(f"the connection to {server} is not encrypted: names and times can be read on the way; use wss://")
    return link, welcome


def _turned_away(server: str, answer: WSUpgradeResponse | None) -> AimessageError:
    if answer is None:
        return turned_away(server, 0, "")
    return turned_away(server, int(answer.status), answer.headers.get("Retry-After", ""))


async def _connect(link: Link, route: Route) -> None:
    """Open the WebSocket. Raises RelayUnreachable; NotARelay: what accepts it does not speak our protocol."""
    transport, _ = await ws_connect(
        lambda: link,
        route.server + "/ws",
        ssl_context=route.tls,
        server_hostname=dialled_host(route.server) if route.tls is not None else None,  # without a dot at its end
        proxy=route.proxy.url.reveal.decode() if route.proxy is not None else None,
        extra_headers={"Sec-WebSocket-Protocol": SUBPROTOCOL},
        max_frame_size=ANNOUNCED_MESSAGE_BYTES,
        enable_auto_ping=True,
        auto_ping_idle_timeout=25,
        auto_ping_reply_timeout=15,
        enable_auto_pong=True,
        use_aiofastnet=False,
        max_redirects=0,
    )
    if transport.response is None:  # picows also returns when the connection ends before any answer
        raise RelayUnreachable(f"what listens at {route.server} closed the connection without an answer")
    if link.is_connected and transport.response.headers.get("Sec-WebSocket-Protocol") != SUBPROTOCOL:
        transport.disconnect()
        raise NotARelay(f"what answers at {route.server} speaks WebSocket, but not {SUBPROTOCOL}")
