"""The order of what one link sends to one recipient, kept through refusals.

A client may send on before it has heard that a message was refused for now. If what it sent behind that one came in,
it would overtake it. So all that follows to that recipient is refused as well, for as long as the client was told to
wait, and never for less than what is already on its way takes to come.
"""

from aimessage.clock import Clock
from aimessage.errors import error_from_code
from aimessage.relay.limits import BOUNDS
from aimessage.wire.frames import Refused

__all__ = ["Order"]


class Order:
    """The recipients of one link that something waits for, at most `held_recipients` of them."""

    __slots__ = ("_clock", "_held")  # each link has one

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, tuple[float, Refused]] = {}

    @property
    def holds_nothing(self) -> bool:
        """Whether nothing of this link waits."""
        return not self._held

    def begin(self) -> None:
        """A new lot of requests: let go whose time is over. Within a lot nobody is let go."""
        if self._held:
            now = self._clock.monotonic()
            self._held = {to: held for to, held in self._held.items() if held[0] > now}

    def hold(self, to: str, refused: Refused) -> Refused:
        """Return the refusal of a message to *to* as it is sent; hold what follows if that one may be sent again."""
        if to in self._held or not error_from_code(refused.code, "").retryable:
            return refused
        if len(self._held) >= BOUNDS.held_recipients:
            del self._held[next(iter(self._held))]
        wait = max(refused.retry_after, BOUNDS.held_seconds)
        if refused.retry_after:  # without one, the client chooses its own time
            refused = Refused(refused.id, refused.code, refused.message, wait)
        self._held[to] = self._clock.monotonic() + wait, refused
        return refused

    def refusal(self, to: str, request_id: int) -> Refused | None:
        """Return the refusal of a message to *to* because of one before it, or None."""
        if to not in self._held:
            return None
        until, first = self._held[to]
        left = max(0.0, until - self._clock.monotonic()) if first.retry_after else 0.0
        return Refused(request_id, first.code, "a message before this one has to come first", left)
