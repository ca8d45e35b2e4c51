"""The order of one sender's messages: what comes early waits a little for what is missing. Nothing here does I/O.

Each body carries its sender's vault id and a sequence that counts that vault's bodies to us from 1. One identity may
send from several machines, so each of its vaults is counted by itself.
"""

from enum import Enum, auto

import msgspec

__all__ = ["HOLD_MS", "Heard", "Place"]

HOLD_MS = 30_000
"""How long a message waits for the ones before it."""


class Place(Enum):
    """Where a message stands."""

    NEXT = auto()
    EARLY = auto()
    LATE = auto()


class Heard(msgspec.Struct, frozen=True, gc=False):
    """What we have heard of one vault of one sender: *next* is the sequence that comes next."""

    vault_id: bytes
    next: int

    def place(self, sequence: int) -> Place:
        """Return where *sequence* stands."""
        if sequence == self.next:
            return Place.NEXT
        return Place.EARLY if sequence > self.next else Place.LATE

    def after(self, sequence: int) -> "Heard":
        """Return what we know once *sequence* has been let through."""
        return Heard(self.vault_id, max(self.next, sequence + 1))
