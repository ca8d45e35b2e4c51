"""Deliveries of one subscription: pulled from the mailbox only while the link takes them and the window is open."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import cast

from aimessage.clock import Clock, milliseconds
from aimessage.relay.bell import Bell
from aimessage.relay.limits import BOUNDS
from aimessage.stores.ports import CaughtUp as StreamCaughtUp
from aimessage.stores.ports import Mailboxes, Stored
from aimessage.types import MessageId, Position, Username
from aimessage.wire.frames import CaughtUp, Deliver, RelayFrame

__all__ = ["Outflow"]

_FRAME_OVERHEAD_BYTES = 128


class Outflow:
    """Sends a mailbox down one link, from its start, then as mail comes; each entry once a subscription.

    *send* writes frames as one message; *is_writable* says whether the link takes more. Nothing of the mailbox is
    held here but sizes of what is unacknowledged, at most `window_bytes` and `window_entries` of it.
    """

    __slots__ = (
        "_after", "_awake", "_caught_up", "_clock", "_is_writable", "_mailboxes", "_owner", "_send", "_subscription",
        "_unacknowledged", "_unacknowledged_bytes",
    )  # fmt: skip

    def __init__(
        self,
        owner: Username,
        subscription: int,
        mailboxes: Mailboxes,
        clock: Clock,
        send: Callable[[Sequence[RelayFrame]], None],
        is_writable: Callable[[], bool],
    ) -> None:
        self._owner = owner
        self._subscription = subscription
        self._mailboxes = mailboxes
        self._clock = clock
        self._send = send
        self._is_writable = is_writable
        self._after = Position(0)
        self._unacknowledged: dict[Position, int] = {}
        self._unacknowledged_bytes = 0
        self._awake = Bell()
        self._caught_up = False

    @property
    def subscription(self) -> int:
        """The number that its deliveries carry."""
        return self._subscription

    @property
    def is_caught_up(self) -> bool:
        """Whether all that was there at the start has been sent."""
        return self._caught_up

    def wake(self) -> None:
        """Something may have changed: new mail, a writable link, an acknowledgement."""
        self._awake.ring()

    def acknowledged(self, entries: Sequence[tuple[Position, MessageId]]) -> None:
        """Open the window by what the recipient has acknowledged."""
        for position, _ in entries:
            self._unacknowledged_bytes -= self._unacknowledged.pop(position, 0)
        self.wake()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            self._awake.muffle()  # before reading, so that what comes meanwhile wakes us again
            if self._may_send() and await self._pour():
                continue
            await self._awake.heard()

    def _may_send(self) -> bool:
        return (
            self._is_writable()
            and self._unacknowledged_bytes < BOUNDS.window_bytes
            and len(self._unacknowledged) < BOUNDS.window_entries
        )

    async def _pour(self) -> bool:
        """Send one message of deliveries; return whether there may be more to send now."""
        frames: list[RelayFrame] = []
        size = 0
        room = BOUNDS.window_entries - len(self._unacknowledged)
        room_bytes = BOUNDS.window_bytes - self._unacknowledged_bytes
        now_ms = milliseconds(self._clock.now())
        stream = self._mailboxes.stream(self._owner, after=self._after, now_ms=now_ms)
        done = False
        # Every store's stream is an async generator: close it at once, not when the collector comes by.
        async with aclosing(cast("_Closable", stream)):
            async for entry in stream:
                if isinstance(entry, StreamCaughtUp):
                    done = True
                    break
                frames.append(self._deliver(entry))
                size += len(entry.sealed) + _FRAME_OVERHEAD_BYTES
                if size >= min(room_bytes, BOUNDS.outgoing_message_bytes):
                    break
                if len(frames) >= min(room, BOUNDS.outgoing_frames):
                    break
        if done and not self._caught_up:
            self._caught_up = True
            frames.append(CaughtUp(self._subscription))
        if frames:
            self._send(frames)
        return not done

    def _deliver(self, entry: Stored) -> Deliver:
        self._after = entry.position
        size = len(entry.sealed) + _FRAME_OVERHEAD_BYTES
        self._unacknowledged[entry.position] = size
        self._unacknowledged_bytes += size
        return Deliver(
            self._subscription, entry.position, entry.sender, entry.message_id, entry.attempt, entry.mail_class,
            entry.accepted_at, entry.expires_at, entry.sealed,
        )  # fmt: skip


class _Closable:
    """What aclosing needs to see."""

    aclose: Callable[[], Awaitable[None]]
