"""One network connection to the relay over a blocking socket: for a command that sends one message and ends.

The same link machine, without an event loop to import. What has to wait for several things at once, go through a proxy
or subscribe uses `link` instead.
"""

import itertools
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar, cast
from urllib.parse import urlsplit

from aimessage.client import fates
from aimessage.client.account import Here, Live, proof, relay_clock
from aimessage.client.dialling import Route, dialled_host
from aimessage.client.links import GREETING_SECONDS, SUBPROTOCOL, Paces, judge, lots, refusal, turned_away
from aimessage.client.waiting import Blocking
from aimessage.clock import Clock
from aimessage.crypto.kdf import sha1
from aimessage.crypto.random import Entropy
from aimessage.errors import AimessageError, LinkLost, NotARelay
from aimessage.types import Username
from aimessage.wire.frames import (
    BundleAnswer,
    Bye,
    ClientFrame,
    FetchBundle,
    Prove,
    Proved,
    Refused,
    RelayFrame,
    Welcome,
)
from aimessage.wire.limits import ANNOUNCED_MESSAGE_BYTES, PIPELINE_BYTES
from aimessage.wire.link import ClientLink, LinkFailed
from aimessage.wire.websocket import ClientWebSocket, SocketClosed, SocketFailed, SocketOpened, SocketRefused

__all__ = ["BlockingLink", "BlockingReach"]

_READ_BYTES = 65_536
_PORTS = {"ws": 80, "wss": 443}
_KEEP_ALIVE = {
    "TCP_KEEPIDLE": 25,
    "TCP_KEEPALIVE": 25,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
}  # as the system names them
_AnswerT = TypeVar("_AnswerT")


class BlockingLink:
    """A link that blocks its thread until an answer is there; every wait ends when its `Blocking` says so."""

    def __init__(self, route: Route, waiting: Blocking, clock: Clock, entropy: Entropy) -> None:
        self._route = route
        self._waiting = waiting
        self._clock = clock
        self._machine = ClientLink()
        self._framing = _framing(route.server, entropy)
        self._ids = itertools.count(1)
        self._paces = Paces()
        self._events: list[RelayFrame | LinkFailed] = []
        self._pushes: list[RelayFrame] = []
        self._proved: Proved | None = None
        self._is_closed = self._is_over = False
        self._socket = self._dial()

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent on it any more."""
        return self._is_closed or (self._is_over and not self._events)

    def greet(self) -> Welcome:
        """Open the WebSocket and return the relay's greeting. Raises NotARelay, LinkLost; TimeoutError."""
        try:
            self._flush()
            welcome = self._next()
        except LinkLost:
            raise NotARelay(f"what answers at {self._route.server} closed the connection without a greeting") from None
        if not isinstance(welcome, Welcome):
            raise NotARelay(f"what answers at {self._route.server} does not greet as a relay does")
        self._paces.announced(welcome.limits, self._clock.monotonic())
        return welcome

    def prove(self, proof: Prove) -> None:
        """Log in; the proof leaves with the first request, and a refusal of it is that request's error."""
        for event in self._events:  # refused in the very message that greeted
            if not isinstance(event, LinkFailed):
                self._handle(event)
        self._machine.prove(proof)

    async def proved(self) -> Proved:
        """Return what the relay says of our account, having waited for it. Raises what it refuses us with, LinkLost."""
        try:
            self._write(self._machine.data_to_send())
            while self._proved is None:
                self._handle(self._next())
        except BaseException:
            self.close()
            raise
        return self._proved

    async def pushed(self) -> list[RelayFrame]:
        """Return, once each, the frames that answer no request: at least one, and all that came with it.

        Raises LinkLost, and what the relay says farewell with; TimeoutError: nothing came, and the link goes on.
        """
        try:
            while not self._pushes or self._events:
                self._handle(self._next())
        except TimeoutError:  # what has come of a message is kept
            raise
        except BaseException:
            self.close()
            raise
        pushes, self._pushes = self._pushes, []
        return pushes

    def tell(self, frame: ClientFrame) -> None:
        """Send one frame that has no answer. Raises LinkLost."""
        self._send([frame])

    async def request(self, build: Callable[[int], ClientFrame], answer: type[_AnswerT]) -> _AnswerT:
        """Send one request and return its answer.

        Raises the error that the relay refuses with, LinkLost; TimeoutError: the caller's time is over.
        """
        [result] = await self.request_all([build], answer)
        if isinstance(result, AimessageError):
            raise result
        return result

    async def bundle(self, recipient: Username) -> BundleAnswer:
        """Look *recipient*'s bundle up, with a one-time pair. Raises as `request`."""
        return await self.request(lambda request_id: FetchBundle(request_id, recipient), BundleAnswer)

    @property
    def body_bytes(self) -> int:
        """The largest padded body that the relay takes."""
        return self._paces.body_bytes

    def room(self, *, receipts: bool = False) -> int:
        """Return how many requests (or *receipts*) may go now without waiting for the relay's pace; at least one."""
        return self._paces.room(self._clock.monotonic(), receipts=receipts)

    async def request_all(
        self, builds: Sequence[Callable[[int], ClientFrame]], answer: type[_AnswerT]
    ) -> list[_AnswerT | AimessageError]:
        """Send several requests at once and return what came of each, in order: its answer, or its error.

        Raises LinkLost: nothing was sent; TimeoutError.
        """
        ids = [next(self._ids) for _ in builds]
        frames = [build(request_id) for build, request_id in zip(builds, ids, strict=True)]
        delay = self._paces.take(frames, self._clock.monotonic())
        if delay:
            await self._waiting.pause(delay)
        answers: dict[int, _AnswerT | AimessageError] = {}
        try:
            for lot in lots(frames):
                self._send(lot)
            while len(answers) < len(ids):
                frame = self._next()
                request_id = getattr(frame, "id", 0)
                if request_id in ids:
                    answers[request_id] = judge(frame, answer)
                else:
                    self._handle(frame)
        except AimessageError as error:
            self.close()  # an answer may be half read
            if not answers:
                raise
            return [answers.get(request_id, error) for request_id in ids]
        except BaseException:
            self.close()
            raise
        return [answers[request_id] for request_id in ids]

    def close(self) -> None:
        """Close the connection."""
        self._is_closed = True
        self._socket.close()

    def _dial(self) -> socket.socket:
        parts = urlsplit(self._route.server)
        host, port = dialled_host(self._route.server), parts.port or _PORTS[parts.scheme]
        # As bytes, for as a string the resolver would first load what it needs for names that are not ASCII.
        address = (cast("str", host.encode("ascii")), port)
        plain = socket.create_connection(address, min(self._waiting.left(), GREETING_SECONDS))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _keep_alive(plain)
        if self._route.tls is None:
            return plain
        try:
            return self._route.tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    def _send(self, frames: Sequence[ClientFrame]) -> None:
        if self.is_lost:
            raise LinkLost("the connection to the relay broke")
        proof = self._machine.data_to_send()
        self._machine.send(frames)
        messages = self._machine.data_to_send()
        if proof and sum(map(len, messages)) >= PIPELINE_BYTES:  # more than a relay keeps for whom it does not know
            self._write(proof)
            proof = []
            while self._proved is None:
                self._handle(self._next())
        self._write(proof + messages)

    def _write(self, messages: list[bytes]) -> None:
        for message in messages:
            self._framing.send(message)
        self._flush()

    def _flush(self) -> None:
        if octets := self._framing.data_to_send():
            try:
                self._socket.settimeout(self._patience())
                self._socket.sendall(octets)
            except TimeoutError:
                self.close()  # a part of it may have left
                raise
            except OSError:
                raise LinkLost("the connection to the relay broke") from None

    def _next(self) -> RelayFrame:
        """Return the next frame that the relay sent."""
        while not self._events:
            if self._is_over:  # only now: what came before the end is heard first
                raise LinkLost("the connection to the relay broke")
            self._read()
        event = self._events.pop(0)
        if isinstance(event, LinkFailed):
            raise NotARelay(f"the relay broke the protocol: {event.reason}")
        return event

    def _handle(self, frame: RelayFrame) -> None:
        match frame:
            case Proved():
                self._proved = frame
            case Refused(id=0) | Bye():
                raise refusal(frame)
            case _:
                self._pushes.append(frame)

    def _read(self) -> None:
        try:
            self._socket.settimeout(self._patience())
            octets = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            raise
        except OSError:
            octets = b""
        if not octets:
            raise LinkLost("the connection to the relay broke")
        self._framing.receive_data(octets)
        for event in self._framing.events_received():
            match event:
                case bytes():
                    self._machine.receive_message(event)
                    self._events += self._machine.events_received()
                case SocketClosed():
                    self._is_over = True
                case SocketRefused(status=status, retry_after=retry_after):
                    raise turned_away(self._route.server, status, retry_after)
                case SocketFailed():
                    raise NotARelay(f"what answers at {self._route.server} is not an AI Message relay: {event.reason}")
                case SocketOpened():
                    pass
        with suppress(LinkLost):  # what has come is heard first, and the next read tells
            self._flush()

    def _patience(self) -> float | None:
        left = self._waiting.left()
        return None if left == float("inf") else left


def _keep_alive(connection: socket.socket) -> None:
    """Have the system ask whether the other end is still there, as the event loop's links do themselves."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _framing(server: str, entropy: Entropy) -> ClientWebSocket:
    parts = urlsplit(server)
    return ClientWebSocket(
        parts.netloc,
        f"{parts.path}/ws",
        SUBPROTOCOL,
        sha1=sha1,
        entropy=entropy,
        message_bytes=ANNOUNCED_MESSAGE_BYTES,
    )


class BlockingLive(Live, frozen=True, eq=False):
    """A blocking link that has logged in."""

    link: BlockingLink


class BlockingReach:
    """The way to the relay of one command: a link opened when it is first needed, and again after it is lost."""

    def __init__(self, here: Here, waiting: Blocking, route: Route) -> None:
        self._here = here
        self._waiting = waiting
        self._route = route
        self._link: BlockingLink | None = None
        self._relay_ms = 0

    async def link(self) -> BlockingLink:
        """Return a link that was good just now.

        Raises RelayUnreachable, NotARelay, CertificateRefused, RelayChanged.
        """
        if self._link is None or self._link.is_lost:
            self._link = await self._open()
        return self._link

    async def live(self) -> BlockingLive:
        """Return a link whose login the relay has answered. Raises what `link` does, and what refuses us."""
        link = await self.link()
        return BlockingLive(link, await link.proved(), self._relay_ms)

    @property
    def was_used(self) -> bool:
        """Whether this command has spoken with the relay."""
        return self._link is not None

    @property
    def is_open(self) -> bool:
        """Whether there is a link that was good just now."""
        return self._link is not None and not self._link.is_lost

    def close(self) -> None:
        """Close the link."""
        if self._link is not None:
            self._link.close()

    async def _open(self) -> BlockingLink:
        link: BlockingLink | None = None
        silent_from = self._here.clock.monotonic() + GREETING_SECONDS
        try:
            async with self._waiting.within(GREETING_SECONDS):
                link = BlockingLink(self._route, self._waiting, self._here.clock, self._here.entropy)
                welcome = link.greet()
            link.prove(proof(self._here, welcome))
            self._relay_ms = relay_clock(welcome)
            fates.expire(self._here, self._relay_ms)
        except BaseException as error:
            if link is not None:
                link.close()
            if isinstance(error, TimeoutError) and link is not None:
                if self._here.clock.monotonic() < silent_from:  # the caller has no more time: that says nothing of it
                    raise
                raise NotARelay(f"what answers at {self._route.server} does not greet as a relay does") from None
            if isinstance(error, OSError):
                raise self._route.explain(error) from None
            raise
        if self._route.is_readable:
            self._here.profile.dialling.notice(
                f"the connection to {self._route.server} is not encrypted: names and times can be read on the way; "
                "use wss://"
            )
        return link
