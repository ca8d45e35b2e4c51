"""One `listen`: what it takes, what it has shown, and what it leaves to the next consumer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from aimessage.client import consumers
from aimessage.client.account import Here
from aimessage.client.changes import Watch
from aimessage.client.consumers import Filter
from aimessage.client.handover import Seat
from aimessage.client.message import Message
from aimessage.client.receiver import Receiver
from aimessage.errors import AimessageError

__all__ = ["Showing", "showing"]

_BATCH = 128
_SOON_SECONDS = 0.02
"""How long a fast consumer's shown messages may wait for one commit; until then they are in its worker's notes."""


class Showing:
    """What one consumer has in its hands. With *until_handled* its messages stay with it until acknowledged."""

    def __init__(self, here: Here, receiver: Receiver, seat: Seat, *, until_handled: bool) -> None:
        self._here = here
        self._receiver = receiver
        self._seat = seat
        self._until_handled = until_handled
        self._mine: list[int] = []
        self._noted: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def take(self, limit: int | None, watch: Watch) -> list[tuple[int, Message]]:
        """Return what is there for us, at most *limit*, oldest first: what was handed to us, or what nobody has."""
        watch.look()
        if self._noted and self._timer is None:  # it could not be committed
            self._keep()
        most = _BATCH if limit is None else min(_BATCH, limit)
        taken = self._seat.taken
        if taken:
            handed = [taken.popleft() for _ in range(min(most, len(taken)))]
            last = None if taken else len(handed) - 1
            batch = [(row, message.with_more(at != last)) for at, (row, message) in enumerate(handed)]
        elif consumers.is_worth_a_look(self._here):
            self._keep()
            batch = consumers.claim(self._here, self._seat.wanted, most)
        else:
            batch = []
        self._mine = [*(self._mine if self._until_handled else ()), *(row for row, _ in batch)]
        return batch

    async def more(self, watch: Watch) -> None:
        """Return once there may be something, or after a second. Raises what ended the receiving."""
        with self._seat.waiting():
            await self._receiver.next(watch, 1.0)

    def was_shown(self, row: int) -> None:
        """The consumer has asked for the next one: this one does not come again."""
        if self._until_handled:
            consumers.mark_shown(self._here, [row], until_handled=True)
            self._receiver.changes.tell()
            return
        self._here.living.note(row)
        self._noted.append(row)
        if self._timer is None:  # however long the consumer keeps the next one
            self._timer = asyncio.get_running_loop().call_later(_SOON_SECONDS, self._keep_soon)

    def _keep_soon(self) -> None:
        self._timer = None
        with suppress(AimessageError):  # the consumer hears of it when it asks for the next one
            self._keep()

    def _keep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._noted:
            consumers.mark_shown(self._here, self._noted)
            self._noted.clear()
            self._here.living.forget_notes()
            self._receiver.changes.tell()

    def end(self) -> None:
        """Whoever comes next gets what we have not shown."""
        try:
            self._keep()
        finally:
            consumers.give_back(self._here, self._mine)
            consumers.give_back(self._here, [row for row, _ in self._seat.taken], seen=False)


@contextmanager
def showing(here: Here, receiver: Receiver, wanted: Filter, *, until_handled: bool) -> Iterator[Showing]:
    """The time of one `listen` for what is *wanted*."""
    with receiver.handover.seat(wanted) as seat:
        consumer = Showing(here, receiver, seat, until_handled=until_handled)
        try:
            yield consumer
        finally:
            consumer.end()
