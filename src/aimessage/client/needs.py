"""Why mail is to be taken in, and what does that."""

from datetime import timedelta
from enum import IntEnum
from typing import Protocol

from aimessage.errors import AimessageError

__all__ = ["Intake", "Need"]


class Need(IntEnum):
    """Why somebody in this process wants mail taken in; the strongest decides.

    WATCH: for a fate, if this machine is the identity's active one. RECEIVE: for messages, and makes it the active one.
    LISTEN: for long, and takes the lease from any other process here.
    """

    WATCH = 1
    RECEIVE = 2
    LISTEN = 3


class Intake(Protocol):
    """Takes mail in. *trouble* is what stood between us and the relay, if anything did."""

    trouble: AimessageError | None

    async def settle(self, need: Need, limit: timedelta) -> None:
        """Have what waits at the relay taken in; return when that is done, or after *limit*. Raises what ended it."""
        ...
