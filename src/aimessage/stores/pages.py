"""All of a mailbox, page by page: for whoever copies, compares or clears it."""

from collections.abc import AsyncIterator

from aimessage.stores.ports import Mailboxes, Stored
from aimessage.types import Position, Username

__all__ = ["all_entries"]

_LIMIT = 100


async def all_entries(mailboxes: Mailboxes, owner: Username, *, now_ms: int, after: int = 0) -> AsyncIterator[Stored]:
    """Yield the undeleted, unexpired entries with a position above *after*, in order, those that come meanwhile too."""
    at, is_last = Position(after), False
    while not is_last:
        entries, at, is_last = await mailboxes.page(owner, after=at, now_ms=now_ms, limit=_LIMIT)
        for entry in entries:
            yield entry
