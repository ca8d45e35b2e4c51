"""From arrival to consumer in one commit: who waits in this process is handed what is taken in.

Nobody overtakes: mail is handed over only while nothing older is there for the first who comes.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from aimessage.client.consumers import Filter
from aimessage.client.message import Message

__all__ = ["Handover", "Seat"]


class Seat:
    """One consumer's place; *taken* are rows that are claimed for it, with their messages."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.taken: deque[tuple[int, Message]] = deque()
        self.is_waiting = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within this, what comes and is wanted is handed over."""
        self.is_waiting = True
        try:
            yield
        finally:
            self.is_waiting = False


class Handover:
    """One an Agent: the consumers of this process."""

    def __init__(self) -> None:
        self._seats: list[Seat] = []

    @contextmanager
    def seat(self, wanted: Filter) -> Iterator[Seat]:
        """A place for a consumer of what is *wanted*."""
        seat = Seat(wanted)
        self._seats.append(seat)
        try:
            yield seat
        finally:
            self._seats.remove(seat)

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits."""
        return any(seat.is_waiting for seat in self._seats)

    def taker(self, sender: str, thread: str) -> Seat | None:
        """Return who waits for a message of *sender* in *thread*, if anybody does; the first who came."""
        for seat in self._seats:
            if seat.is_waiting and seat.wanted.admits_from(sender, thread or None):
                return seat
        return None
