"""What the flows need of a link to the relay, whichever shell runs the machine; and what both shells share."""

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol, TypeVar

import msgspec

from aimessage.errors import AimessageError, NotARelay, RateLimited, RelayUnavailable, error_from_code
from aimessage.wire.frames import Bye, ClientFrame, MailClass, Post, Refused
from aimessage.wire.limits import RECEIPTS_FACTOR, Limits

__all__ = ["GREETING_SECONDS", "SUBPROTOCOL", "OpenLink", "Pace", "Paces", "refusal", "turned_away"]

GREETING_SECONDS = 10.0
"""From the first packet to the relay's greeting."""
SUBPROTOCOL = "aimessage.v1"
_LONGEST_WAIT = 3600.0
_TOO_MANY = 429
_NOT_NOW = frozenset({502, 503, 504})
_AnswerT = TypeVar("_AnswerT")


class OpenLink(Protocol):
    """A link that has greeted; its proof goes out with the first request at the latest."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent on it any more."""
        ...

    async def request(self, build: Callable[[int], ClientFrame], answer: type[_AnswerT]) -> _AnswerT:
        """Send one request and return its answer.

        Raises the error that the relay refuses with, or LinkLost.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Pace(msgspec.Struct):
    """Keeps one kind of request under its rate, so that nothing runs into a refusal; times in seconds."""

    rate: float = 0.0
    burst: float = 1.0
    tokens: float = 1.0
    at: float = 0.0

    @classmethod
    def under(cls, rate: float, burst: float, now: float) -> "Pace":
        """Return a pace a little below what the relay allows."""
        burst = max(burst - 2, 1.0)
        return cls(rate * 0.9, burst, burst, now)

    def take(self, now: float) -> float:
        """Count one more request; return how long it has to wait."""
        if not self.rate:
            return 0.0
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate) - 1
        self.at = now
        return max(0.0, -self.tokens / self.rate)


class Paces:
    """What a relay has announced, for requests and for control mail, which does not count as a request."""

    def __init__(self) -> None:
        self._requests = self._receipts = Pace()

    def announced(self, limits: Limits, now: float) -> None:
        """Keep under *limits* from *now* on."""
        rate, burst, factor = limits.requests_per_second, float(limits.request_burst), RECEIPTS_FACTOR
        self._requests = Pace.under(rate, burst, now)
        self._receipts = Pace.under(factor * rate, factor * burst, now)

    def take(self, frame: ClientFrame, now: float) -> float:
        """Count *frame*; return how long it has to wait."""
        is_receipt = isinstance(frame, Post) and frame.mail_class == MailClass.CONTROL
        return (self._receipts if is_receipt else self._requests).take(now)


def refusal(frame: Refused | Bye) -> AimessageError:
    """Return what the relay refuses with. Whatever it says: no command sleeps for longer than an hour because of it."""
    retry_after = timedelta(seconds=min(frame.retry_after, _LONGEST_WAIT)) if frame.retry_after > 0 else None
    return error_from_code(frame.code, frame.message, retry_after=retry_after)


def turned_away(server: str, status: int, retry_after: str) -> AimessageError:
    """Return what an HTTP answer to our handshake means: a relay, or a proxy before it, that cannot now, or neither."""
    seconds = min(float(retry_after), _LONGEST_WAIT) if retry_after.isascii() and retry_after.isdigit() else None
    wait = timedelta(seconds=seconds) if seconds is not None else None
    if status == _TOO_MANY:
        return RateLimited(f"{server} takes no more connections now", retry_after=wait)
    if status in _NOT_NOW:
        return RelayUnavailable(f"{server} cannot take connections now", retry_after=wait)
    return NotARelay(f"what answers at {server} is not an AI Message relay")
