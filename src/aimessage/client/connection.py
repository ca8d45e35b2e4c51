"""The one link of a process, opened when it is first needed and again after it is lost; all of it share the link."""

import asyncio
from collections.abc import Callable

from aimessage.client import fates
from aimessage.client.account import Here, Live, proof, relay_clock
from aimessage.client.link import Link, open_link
from aimessage.client.links import OpenLink
from aimessage.client.pushes import Pushes
from aimessage.types import Username
from aimessage.wire.frames import RelayFrame

__all__ = ["Connected", "Connection", "log_in"]


class LiveLink(Live, frozen=True, eq=False):
    """A link of the event loop's that has logged in."""

    link: Link


class Connected(LiveLink, frozen=True, eq=False):
    """Such a link, and what the relay pushes on it."""

    pushes: Pushes


class Connection:
    """Belongs to one Agent."""

    def __init__(self, here: Here) -> None:
        self._here = here
        self._linking = asyncio.Lock()
        self._now: Connected | None = None
        self.was_used = False

    async def get(self, *, fresh: bool = False) -> Connected:
        """Return a link that was good just now; a *fresh* one knows who is the active machine. Raises as `log_in`."""
        async with self._linking:
            if fresh:
                self.close()
            if self._now is None or self._now.link.lost.done():
                pushes = Pushes()
                live = await log_in(self._here, pushes.put)
                live.link.lost.add_done_callback(lambda lost: pushes.end(lost.result()))
                try:
                    fates.expire(self._here, live.relay_ms)
                except BaseException:
                    live.link.close()
                    raise
                self.was_used = True
                self._now = Connected(live.link, live.proved, live.relay_ms, pushes)
            return self._now

    @property
    def is_open(self) -> bool:
        """Whether there is a link that was good just now."""
        return self._now is not None and not self._now.link.is_lost

    @property
    def body_bytes(self) -> int:
        """The largest padded body that can leave at once; 0 without a link."""
        return self._now.link.body_bytes if self._now is not None and self.is_open else 0

    async def link(self) -> OpenLink:
        """Return the link of `get`."""
        return (await self.get()).link

    def expect_bundle(self, recipient: Username) -> None:
        """Ask for *recipient*'s bundle now, if there is a link."""
        if self._now is not None and not self._now.link.is_lost:
            self._now.link.expect_bundle(recipient)

    def close(self) -> None:
        """Close the link; the next `get` opens another."""
        if self._now is not None:
            self._now.link.close()
            self._now = None


async def log_in(here: Here, on_push: Callable[[RelayFrame], None]) -> LiveLink:
    """Return a link that has proved our identity to the relay that was pinned at registration.

    Raises RelayChanged, ProofRejected, HostRefused, and what `open_link` does.
    """
    link, welcome = await open_link(here.profile.server, on_push, here.profile.dialling)
    try:
        return LiveLink(link, await link.prove(proof(here, welcome)), relay_clock(welcome))
    except BaseException:
        link.close()
        raise
