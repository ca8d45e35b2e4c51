"""How long to wait between tries."""

from typing import Self

__all__ = ["Delays"]

_FIRST_SECONDS = 0.2
_LONGEST_SECONDS = 15.0


class Delays:
    """Seconds between tries: doubling, bounded, with jitter so that a restarted relay is not stormed."""

    def __init__(self) -> None:
        self._ceiling = _FIRST_SECONDS

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> float:
        import random  # here, where something has failed: it costs a cold command 4 ms

        delay = random.uniform(self._ceiling / 2, self._ceiling)  # noqa: S311 - not a secret
        self._ceiling = min(self._ceiling * 2, _LONGEST_SECONDS)
        return delay
