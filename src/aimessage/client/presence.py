"""Who is registered at the relay, and who is there now: the relay's word, a hint."""

import msgspec

from aimessage.client.links import OpenLink
from aimessage.wire.frames import ListUsers, Users

__all__ = ["UserPresence", "list_users"]


class UserPresence(msgspec.Struct, frozen=True):
    """One registered agent and whether it has a link now: the relay's word, a hint."""

    username: str
    online: bool


async def list_users(link: OpenLink, *, everyone: bool) -> list[UserPresence]:
    """Return who is online, or everybody who is registered, by name. Raises what the relay answers."""
    found: list[UserPresence] = []
    after, more = "", True
    while more:
        start = after
        page = await link.request(lambda request_id: ListUsers(request_id, everyone, start), Users)  # noqa: B023
        found += [UserPresence(row.username, row.online) for row in page.rows]
        more = page.more and bool(page.rows)
        after = page.rows[-1].username if page.rows else ""
    return found
