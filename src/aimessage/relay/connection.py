"""The shell round `wire.link.RelayLink`: one socket, its login, its requests in order, its deliveries."""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import cast

from aimessage.clock import milliseconds
from aimessage.errors import AimessageError, RelayUnavailable, RemoteProtocolError, StoreDamaged
from aimessage.relay.bell import Bell
from aimessage.relay.desk import Desk
from aimessage.relay.faults import behind
from aimessage.relay.limits import BOUNDS, LinkBucket
from aimessage.relay.lobby import Guest
from aimessage.relay.log import event_log, speaking_of
from aimessage.relay.order import Order
from aimessage.relay.outflow import Outflow
from aimessage.relay.transport import Socket
from aimessage.types import MessageId, Position, Username
from aimessage.wire.codec import UnknownFrame
from aimessage.wire.frames import (
    Acknowledge,
    Bye,
    CaughtUp,
    ClientFrame,
    MailClass,
    Post,
    Prove,
    Refused,
    Register,
    RelayFrame,
    Subscribe,
    Subscribed,
)
from aimessage.wire.limits import FRAMES_PER_MESSAGE, RECEIPTS_FACTOR
from aimessage.wire.link import LinkFailed, RelayLink, State

__all__ = ["Connection"]

_PROTOCOL_ERROR = 1008

_Event = ClientFrame | UnknownFrame | LinkFailed


class Connection:
    """One link. The transport calls the handler methods; `run` is its one task, owned by the service."""

    __slots__ = (
        "_arrived", "_bucket", "_challenge", "_desk", "_gone", "_inbox", "_is_online", "_link", "_metrics", "_order",
        "_outflow", "_outflow_task", "_pings", "_receipts", "_room", "_socket", "guest",
    )  # fmt: skip

    def __init__(self, desk: Desk, guest: Guest) -> None:
        self.guest = guest
        self._desk = desk
        self._metrics = desk.metrics
        self._link = RelayLink(desk.config.limits.message_frames or FRAMES_PER_MESSAGE)
        self._socket: Socket | None = None
        self._bucket = LinkBucket(desk.config.rate_connection, desk.clock)
        self._receipts: LinkBucket | None = None
        self._pings: LinkBucket | None = None  # made with the first ping: most links never send one
        self._order = Order(desk.clock)
        self._inbox: list[_Event] = []  # emptied at once, and lighter than a deque
        self._arrived = Bell()
        self._room: asyncio.Event | None = None  # made when it is first waited for: most links never are
        self._gone = False
        self._is_online = False  # an agent is online while a link of its receives
        self._outflow: Outflow | None = None
        self._outflow_task: asyncio.Task[None] | None = None
        self._challenge = desk.challenge()

    # What the transport tells us.

    def opened(self, socket: Socket) -> None:
        """The handshake is done: greet, and start our task."""
        self._socket = socket
        self.guest.cut = self._yield_place
        welcome = self._desk.welcome(self._challenge)
        self._metrics.sent([welcome])
        self._link.greet(welcome)
        self._flush()
        self._desk.own(self.run())

    def received(self, message: bytes) -> None:
        """Decode one message and queue what it holds; stop reading while too much waits."""
        self._link.receive_message(message)
        self._collect()
        if len(self._inbox) > BOUNDS.inbox_frames and self._socket is not None:
            self._socket.hold("inbox")

    def writable(self) -> None:
        """The peer takes bytes again."""
        self._make_room()
        self.wake()

    def closed(self) -> None:
        """The socket is gone; what came in before is still done."""
        self._gone = True
        self._socket = None
        self._arrived.ring()
        self._make_room()

    def allows_ping(self) -> bool:
        """Whether one more ping is within the link's rate."""
        if self._pings is None:
            self._pings = LinkBucket(10.0, self._desk.clock)
        return self._pings.take() == 0.0

    # What other links and the service do to us.

    def push(self, frames: Sequence[RelayFrame]) -> None:
        """Send *frames*, if the link is open, in as few messages as the announced frame count allows."""
        for at in range(0, len(frames), FRAMES_PER_MESSAGE):
            if self._link.state is State.OPEN:
                self._link.send(frames[at : at + FRAMES_PER_MESSAGE])
                self._metrics.sent(frames[at : at + FRAMES_PER_MESSAGE])
        self._flush()

    def wake(self) -> None:
        """Look for mail again."""
        if self._outflow is not None:
            self._outflow.wake()

    def say_bye(self, code: str, message: str, retry_after: float = 0.0) -> None:
        """Say why, and close."""
        bye = Bye(code, message, retry_after)
        self._metrics.sent([bye])
        self._link.close(bye)
        self._flush()
        if self._socket is not None:
            self._socket.close()

    def _yield_place(self) -> None:
        """Go before the login, for somebody whose address has fewer sockets here."""
        self.say_bye("relay_unavailable", "too many connections that are not logged in", 1.0)

    # The task.

    async def run(self) -> None:
        """Log in, then answer requests until the socket is gone. The boundary: no error of one link leaves it."""
        speaking_of(self.guest.id)
        self._desk.arrived(self)
        try:
            owner = await self._login()
            if owner is not None:
                event_log().debug("logged in")
                await self._serve(owner)
        except Exception as error:  # noqa: BLE001  # the boundary: our bug, for the log
            self._told(error)
        finally:
            event_log().debug("link over")
            self._desk.left(self)

    def _told(self, error: Exception) -> None:
        """End the link for *error*. Raises StoreDamaged: that ends the relay."""
        if damage := behind(error, StoreDamaged):
            raise damage
        if busy := behind(error, RelayUnavailable):  # an acknowledgement that the store did not take, for example
            self.say_bye(busy.code, busy.message, 1.0)
        else:
            event_log().error("link failed", error=type(error).__name__, exc_info=error)
            if self._socket is not None:
                self._socket.close(1011, "internal error")

    async def _login(self) -> Username | None:
        try:
            async with asyncio.timeout_at(self.guest.deadline):
                proof = await self._next()
                if not isinstance(proof, Prove | Register):
                    self._fail(proof)
                    return None
                account = await self._desk.authenticate(proof, self._challenge, self.guest.address)
        except TimeoutError:
            self._metrics.limit("login_time")
            event_log().debug("login refused", code="timed_out")
            self.say_bye("timed_out", "the proof did not come in time")
            return None
        except StoreDamaged:
            raise
        except AimessageError as error:
            event_log().debug("login refused", code=error.code)
            refused = _refused(0, error)
            self._metrics.sent([refused])
            self._link.reject(refused)
            self._flush()
            if self._socket is not None:
                self._socket.close(_PROTOCOL_ERROR, error.code)
            return None
        proved = await self._desk.proved(account)
        self._metrics.sent([proved])
        self._link.admit(proved)
        self._desk.logged_in(self)
        self._flush()
        self._collect()
        return account.username  # and not the account: its bundle would live as long as the link

    async def _next(self) -> _Event | None:
        while not self._inbox and not self._gone:
            self._arrived.muffle()
            await self._arrived.heard()
        return self._inbox.pop(0) if self._inbox else None

    async def _serve(self, owner: Username) -> None:
        await self._desk.join(owner, self)
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._answer_all(owner, tasks)
                if self._outflow_task is not None:
                    self._outflow_task.cancel()
        finally:
            await asyncio.shield(self._desk.leave(owner, self, arrived=self._is_online))

    async def _answer_all(self, owner: Username, tasks: asyncio.TaskGroup) -> None:
        while (first := await self._next()) is not None:
            events = [first, *self._inbox]
            self._inbox.clear()
            self._order.begin()
            if self._socket is not None:
                self._socket.release("inbox")
            for kind, group in groupby(events, type):
                if not await self._answer(owner, kind, list(group), tasks):
                    return

    async def _answer(self, owner: Username, kind: type, events: Sequence[_Event], tasks: asyncio.TaskGroup) -> bool:
        """Answer events of one kind; return False if they end the link."""
        if kind is LinkFailed:
            self._fail(events[0])
            return False
        if kind is Acknowledge:
            await self._acknowledge(owner, cast("Sequence[Acknowledge]", events))
            return True
        allowed = self._within_rate(events)
        if kind is Post:
            answers = await self._desk.delivery.post(owner, cast("Sequence[Post]", allowed), self._order)
            self._metrics.posted(answers)
            self.push(answers)
            return True
        for event in allowed:
            await self._until_writable()
            if isinstance(event, Subscribe):
                await self._subscribe(owner, event, tasks)
            else:
                self.push([await self._one(owner, event)])
        return True

    async def _one(self, owner: Username, event: _Event) -> RelayFrame:
        if isinstance(event, UnknownFrame):
            return Refused(event.request_id, "unsupported", "this relay does not know the request")
        try:
            return await self._desk.request(owner, event)
        except StoreDamaged:
            raise
        except AimessageError as error:
            return _refused(getattr(event, "id", 0), error)

    def _bucket_of(self, event: _Event) -> LinkBucket:
        is_receipt = isinstance(event, Post) and event.mail_class == MailClass.CONTROL
        if not is_receipt:
            return self._bucket
        if self._receipts is None:
            rate = RECEIPTS_FACTOR * self._desk.config.rate_connection
            self._receipts = LinkBucket(rate, self._desk.clock)
        return self._receipts

    def _within_rate(self, events: Sequence[_Event]) -> Sequence[_Event]:
        if self._order.holds_nothing and (self._bucket.is_boundless or self._take_all(events)):
            return events
        allowed: list[_Event] = []
        refused: list[RelayFrame] = []
        for event in events:
            refusal = self._order.refusal(event.to, event.id) if isinstance(event, Post) else None
            if refusal is None and (wait := self._bucket_of(event).take()):
                request_id = event.request_id if isinstance(event, UnknownFrame) else getattr(event, "id", 0)
                refusal = Refused(request_id, "rate_limited", "too many requests on this connection", wait)
                self._metrics.limit("connection_rate")
                if isinstance(event, Post):
                    refusal = self._order.hold(event.to, refusal)
            if refusal is None:
                allowed.append(event)
            else:
                refused.append(refusal)
                if isinstance(event, Post):
                    self._metrics.posted([refusal])
        self.push(refused)
        return allowed

    def _take_all(self, events: Sequence[_Event]) -> bool:
        """Count all *events*, if there is room for all, and return whether there is; receipts go one by one."""
        if any(isinstance(event, Post) and event.mail_class == MailClass.CONTROL for event in events):
            return False
        return self._bucket.take_all(len(events))

    async def _subscribe(self, owner: Username, request: Subscribe, tasks: asyncio.TaskGroup) -> None:
        try:
            if not self._is_online:
                self._is_online = True
                await self._desk.arrive(owner)  # first: what changes from now on is heard of
            answer = await self._desk.activate(owner, request)
        except RelayUnavailable as error:
            answer = _refused(request.id, error)
        if not isinstance(answer, Subscribed):
            self.push([answer])
            return
        if self._outflow_task is not None:
            self._outflow_task.cancel()
        self._outflow = Outflow(
            owner, answer.subscription, self._desk.mailboxes, self._desk.clock, self._deliver, self._is_writable
        )
        self._desk.hub.receive(owner, self, answer.subscription)
        self.push([answer])
        self._outflow_task = tasks.create_task(self._outflow.run())

    async def _acknowledge(self, owner: Username, frames: Sequence[Acknowledge]) -> None:
        outflow = self._outflow
        if outflow is None:
            return
        entries: list[tuple[Position, MessageId]] = [
            (entry.position, entry.message_id)  # type: ignore[misc]  # as they came: the store compares them
            for frame in frames
            if frame.subscription == outflow.subscription
            for entry in frame.entries
        ]
        if entries and await self._desk.is_newest(owner, outflow.subscription):
            self._metrics.acknowledged(await self._desk.mailboxes.ack(owner, entries))
            outflow.acknowledged(entries)

    def _deliver(self, frames: Sequence[RelayFrame]) -> None:
        self.push(frames)
        # What waited for its owner says nothing about the relay.
        if self._outflow is not None and self._outflow.is_caught_up and not isinstance(frames[-1], CaughtUp):
            self._metrics.delivered(frames, milliseconds(self._desk.clock.now()))

    async def _until_writable(self) -> None:
        """Do not answer into a full buffer: a peer that asks and never reads costs one buffer, then is cut."""
        while self._socket is not None and not self._socket.is_writable:
            self._room = asyncio.Event()
            await self._room.wait()

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()

    def _is_writable(self) -> bool:
        return self._socket is not None and self._socket.is_writable

    def _collect(self) -> None:
        events = self._link.events_received()
        self._metrics.received(events)
        self._inbox.extend(events)
        self._arrived.ring()

    def _flush(self) -> None:
        for message in self._link.data_to_send():
            if self._socket is not None:
                self._socket.send(message)

    def _fail(self, event: _Event | None) -> None:
        reason = event.reason if isinstance(event, LinkFailed) else RemoteProtocolError.code
        if event is not None:
            event_log().debug("link refused", reason=reason)
        if self._socket is not None:
            self._socket.close(_PROTOCOL_ERROR, reason)


def _refused(request_id: int, error: AimessageError) -> Refused:
    wait = error.retry_after.total_seconds() if error.retry_after is not None else 0.0
    return Refused(request_id, error.code, error.message, wait)
