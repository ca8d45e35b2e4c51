"""The order of one sender's messages: what comes early waits a little for what is missing. Nothing here does I/O.

Each body carries its sender's vault id and a sequence that counts that vault's bodies to us from 1.
"""

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["HOLD_MS", "Heard", "Place"]

HOLD_MS = 30_000
"""How long a message waits for the ones before it."""


class Place(Enum):
    """Where a message stands."""

    NEXT = auto()
    EARLY = auto()
    LATE = auto()


@dataclass(frozen=True, slots=True)
class Heard:
    """What we have heard of one sender: its vault, and the sequence that comes next (0: nothing yet)."""

    vault_id: bytes = b""
    next: int = 0

    def meet(self, vault_id: bytes, sequence: int, *, from_start: bool) -> "Heard":
        """Return what we know once a body of *vault_id* has come.

        A vault that is new to us starts at 1 if *from_start*, that is, if nothing of it can have come here before;
        otherwise (we were restored and have forgotten) with this body.
        """
        if vault_id == self.vault_id and self.next:
            return self
        return Heard(vault_id, 1 if from_start else sequence)

    def place(self, sequence: int) -> Place:
        """Return where *sequence* stands."""
        if sequence == self.next:
            return Place.NEXT
        return Place.EARLY if sequence > self.next else Place.LATE

    def after(self, sequence: int) -> "Heard":
        """Return what we know once *sequence* has been let through."""
        return Heard(self.vault_id, max(self.next, sequence + 1))
