"""Deliveries of one subscription: pulled from the mailbox only while the link takes them and the window is open."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from aimessage.clock import Clock, milliseconds
from aimessage.relay.bell import Bell
from aimessage.relay.limits import BOUNDS
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
        entries, after, is_last = await self._mailboxes.page(
            self._owner,
            after=self._after,
            now_ms=milliseconds(self._clock.now()),
            limit=min(BOUNDS.window_entries - len(self._unacknowledged), BOUNDS.outgoing_frames),
        )
        taken = self._within_bytes(entries)
        if len(taken) < len(entries):
            after, is_last = taken[-1].position, False
        self._after = after
        subscription = self._subscription
        frames: list[RelayFrame] = [
            Deliver(
                subscription, entry.position, entry.sender, entry.message_id, entry.attempt, entry.mail_class,
                entry.accepted_at, entry.expires_at, entry.sealed,
            )
            for entry in taken
        ]  # fmt: skip
        if is_last and not self._caught_up:
            self._caught_up = True
            frames.append(CaughtUp(subscription))
        if frames:
            self._send(frames)
        return not is_last

    def _within_bytes(self, entries: Sequence[Stored]) -> Sequence[Stored]:
        """Count as many of *entries* as there is room for, and return them; at least one."""
        sizes = [len(entry.sealed) + _FRAME_OVERHEAD_BYTES for entry in entries]
        room = min(BOUNDS.window_bytes - self._unacknowledged_bytes, BOUNDS.outgoing_message_bytes)
        if sum(sizes) > room:
            fitting = sum(below < room for below in accumulate(sizes, initial=0))
            entries, sizes = entries[:fitting], sizes[:fitting]
        self._unacknowledged.update(zip([entry.position for entry in entries], sizes, strict=True))
        self._unacknowledged_bytes += sum(sizes)
        return entries
