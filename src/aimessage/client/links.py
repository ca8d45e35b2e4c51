"""What the flows need of a link to the relay, whichever shell runs the machine; and what both shells share."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

import msgspec

from aimessage.e2ee.bodies import BODY_BYTES
from aimessage.errors import (
    AimessageError,
    NotARelay,
    RateLimited,
    RelayUnavailable,
    RemoteProtocolError,
    error_from_code,
)
from aimessage.types import Username
from aimessage.wire.frames import BundleAnswer, Bye, ClientFrame, MailClass, Post, Refused, RelayFrame
from aimessage.wire.limits import RECEIPTS_FACTOR, SEALED_BYTES, Limits

__all__ = [
    "GREETING_SECONDS",
    "MOST_AT_ONCE",
    "SUBPROTOCOL",
    "OpenLink",
    "Pace",
    "Paces",
    "judge",
    "lots",
    "refusal",
    "turned_away",
]

GREETING_SECONDS = 10.0
"""From the first packet to the relay's greeting."""
SUBPROTOCOL = "aimessage.v1"
MOST_AT_ONCE = 128
"""Requests that one commit prepares and one turn sends."""
_LOT_BYTES = 256 << 10
_LONGEST_WAIT = 3600.0
_HEADER_BYTES = SEALED_BYTES - BODY_BYTES  # what a relay leaves room for beside the body
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

    async def bundle(self, recipient: Username) -> BundleAnswer:
        """Look *recipient*'s bundle up, with a one-time pair. Raises as `request`."""
        ...

    @property
    def body_bytes(self) -> int:
        """The largest padded body that the relay takes."""
        ...

    def room(self, *, receipts: bool = False) -> int:
        """Return how many requests (or *receipts*) may go now without waiting for the relay's pace; at least one."""
        ...

    async def request_all(
        self, builds: Sequence[Callable[[int], ClientFrame]], answer: type[_AnswerT]
    ) -> list[_AnswerT | AimessageError]:
        """Send several requests at once and return what came of each, in order: its answer, or its error.

        Raises LinkLost: nothing was sent.
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

    def take(self, now: float, count: int = 1) -> float:
        """Count *count* more requests; return how long they have to wait."""
        if not self.rate:
            return 0.0
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate) - count
        self.at = now
        return max(0.0, -self.tokens / self.rate)

    def room(self, now: float) -> int:
        """Return how many requests need not wait; at least one."""
        if not self.rate:
            return MOST_AT_ONCE
        return max(1, min(MOST_AT_ONCE, int(min(self.burst, self.tokens + (now - self.at) * self.rate))))


def lots(frames: Sequence[ClientFrame]) -> Iterator[list[ClientFrame]]:
    """Yield *frames* in lots that fit one WebSocket message of any relay's, in order."""
    lot: list[ClientFrame] = []
    size = 0
    for frame in frames:
        size += len(frame.sealed) if isinstance(frame, Post) else 0
        if lot and size > _LOT_BYTES:
            yield lot
            lot, size = [], len(frame.sealed) if isinstance(frame, Post) else 0
        lot.append(frame)
    if lot:
        yield lot


def judge(frame: RelayFrame, answer: type[_AnswerT]) -> _AnswerT | AimessageError:
    """Return *frame* if it is an *answer*, or the error that it stands for."""
    if isinstance(frame, Refused):
        return refusal(frame)
    return frame if isinstance(frame, answer) else RemoteProtocolError("the relay gave an answer of another kind")


class Paces:
    """What a relay has announced, for requests and for control mail, which does not count as a request."""

    def __init__(self) -> None:
        self._requests = self._receipts = Pace()
        self.body_bytes = BODY_BYTES

    def announced(self, limits: Limits, now: float) -> None:
        """Keep under *limits* from *now* on."""
        self.body_bytes = limits.sealed_bytes - _HEADER_BYTES
        rate, burst, factor = limits.requests_per_second, float(limits.request_burst), RECEIPTS_FACTOR
        self._requests = Pace.under(rate, burst, now)
        self._receipts = Pace.under(factor * rate, factor * burst, now)

    def take(self, frames: Sequence[ClientFrame], now: float) -> float:
        """Count *frames*; return how long they have to wait."""
        receipts = sum(isinstance(frame, Post) and frame.mail_class == MailClass.CONTROL for frame in frames)
        requests = len(frames) - receipts
        waits = (self._receipts.take(now, receipts) if receipts else 0.0,
                 self._requests.take(now, requests) if requests else 0.0)  # fmt: skip
        return max(waits)

    def room(self, now: float, *, receipts: bool) -> int:
        """Return how many requests, or *receipts*, need not wait; at least one."""
        return (self._receipts if receipts else self._requests).room(now)


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
