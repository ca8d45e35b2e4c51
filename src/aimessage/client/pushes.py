"""What the relay sends of its own accord, in the order in which it came, until somebody takes it."""

import asyncio
from collections import deque

from aimessage.errors import AimessageError
from aimessage.wire.frames import CaughtUp, Deliver, RelayFrame

__all__ = ["Pushes"]

_MOST = 4096  # frames that wait to be taken in; a relay's window is 1 000 of them
_MOST_BYTES = 192 << 10  # sealed, that are taken in at once: a few batches


class Pushes:
    """Belongs to one link; one task takes from it."""

    def __init__(self) -> None:
        self._frames: deque[RelayFrame] = deque()
        self._lost: AimessageError | None = None
        self._taker: asyncio.Future[None] | None = None

    def put(self, frame: RelayFrame) -> None:
        """Add a frame. Raises QueueFull: there are more than any relay of ours sends unacknowledged."""
        # A hint about our stock may come to a link where nobody reads; only mail must never be dropped.
        if not isinstance(frame, Deliver | CaughtUp) and self._frames:
            return
        if len(self._frames) >= _MOST:
            raise asyncio.QueueFull
        self._frames.append(frame)
        self._wake()

    def end(self, error: AimessageError) -> None:
        """Nothing more comes: the link was lost to *error*."""
        self._lost = error
        self._wake()

    async def take(self, most: int) -> list[RelayFrame]:
        """Return what has come, at least one frame, up to *most* and not too long. Raises what the link was lost to."""
        while not self._frames:
            if self._lost is not None:
                raise self._lost
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        taken, size = list[RelayFrame](), 0
        while self._frames and len(taken) < most and size < _MOST_BYTES:
            frame = self._frames.popleft()
            size += len(frame.sealed) if isinstance(frame, Deliver) else 0
            taken.append(frame)
        return taken

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)
