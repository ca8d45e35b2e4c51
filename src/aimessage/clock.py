"""The only reader of time: wall-clock for what people see, monotonic for what waits."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

__all__ = ["Clock", "SystemClock", "milliseconds", "timestamp"]


class Clock(Protocol):
    """Two clocks that must not be mixed: a jump of the first never moves the second."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start that never jumps."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start that never jumps."""
        return time.monotonic()


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(moment: datetime) -> int:
    """Return *moment* (aware) as whole milliseconds since 1970, as it travels."""
    since = moment - _EPOCH
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def timestamp(milliseconds: int) -> str | None:
    """Return RFC 3339 in UTC, whole seconds; None for 0."""
    return _second(milliseconds // 1000) if milliseconds else None


@lru_cache(maxsize=256)  # what comes together is often of one second
def _second(seconds: int) -> str | None:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # a peer may claim any number
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
