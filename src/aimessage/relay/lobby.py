"""Every socket from its accept to its login or its end, TLS handshakes included, in fair shares among addresses.

While there is room, one address may have all of it. When there is none, whoever has fewer takes the place that was
held longest of the address that holds most: so one address cannot keep the others out.
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Guest", "Lobby"]


@dataclass(slots=True, eq=False)
class Guest:
    """One such socket: a random id for the log, where it comes from, until when it has to log in (event loop time), and
    what cuts it off."""

    id: str
    peer: str
    address: str
    deadline: float | None
    cut: Callable[[], object]


class Lobby:
    """At most *most* guests, 0 for any number; *told* of each one that is cut off for another."""

    def __init__(self, most: int, told: Callable[[], None]) -> None:
        self._most = most
        self._told = told
        self._guests: dict[str, dict[Guest, None]] = {}  # by address, the oldest first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, address: str) -> int:
        """Return how many guests an address has."""
        return len(self._guests.get(address, ()))

    def enter(self, guest: Guest) -> bool:
        """Take *guest* in, perhaps instead of another one, who is cut off; return False if there is no room for it."""
        if 0 < self._most <= self._count:
            fullest = max(self._guests.values(), key=len)
            if len(fullest) <= self.of(guest.address) + 1:
                return False
            oldest = next(iter(fullest))
            self.leave(oldest)
            oldest.cut()
            self._told()
        self._add(guest)
        return True

    def move(self, guest: Guest, address: str) -> None:
        """Count *guest*, if it is still here, for another address: behind a proxy that is known only now."""
        if self.leave(guest):
            guest.address = address
            self._add(guest)

    def leave(self, guest: Guest) -> bool:
        """Forget *guest*; return whether it was here."""
        there = self._guests.get(guest.address, {})
        if guest not in there:
            return False
        del there[guest]
        self._count -= 1
        if not there:
            del self._guests[guest.address]
        return True

    def _add(self, guest: Guest) -> None:
        self._guests.setdefault(guest.address, {})[guest] = None
        self._count += 1
