"""Taking in what waits at the relay, once and without an event loop: for a command that looks and ends.

What `receiver` does for as long as it runs, this does until the relay says that all has come.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from aimessage.client import consumers, inbox
from aimessage.client.account import Here
from aimessage.client.blocking import BlockingReach
from aimessage.client.copies import RelayCopies, acknowledgements
from aimessage.client.joining import renew_vault, subscribe
from aimessage.client.locks import take_lock
from aimessage.client.needs import Need
from aimessage.client.state import store_state
from aimessage.errors import AimessageError, GenerationStale, RelayUnreachable, Temporary
from aimessage.wire.frames import CaughtUp, Deliver

__all__ = ["Fetching"]

_STORE_SECONDS = 2.0


class Fetching:
    """`needs.Intake` of one command; *trouble* is what stood between us and the relay."""

    def __init__(self, here: Here, reach: BlockingReach, notice: Callable[[str], None]) -> None:
        self._here = here
        self._reach = reach
        self._notice = notice
        self._is_subscribed = False
        self.trouble: AimessageError | None = None

    async def settle(self, need: Need, limit: timedelta) -> None:
        """Have what waits at the relay taken in; return when that is done, or after *limit*.

        Raises what `Agent.listen` does.
        """
        clock = self._here.clock
        until = clock.monotonic() + limit.total_seconds()
        try:
            async with self._here.waiting.within(limit.total_seconds()):
                await self._fetch(need)
        except TimeoutError:
            if not self._is_subscribed:
                self.trouble = RelayUnreachable("the relay did not answer in time")
        except AimessageError as error:
            # Who has said nothing until now may be a relay all the same: what is here already is shown.
            if not isinstance(error, Temporary) and clock.monotonic() < until:
                raise
            self.trouble = error

    async def _fetch(self, need: Need) -> None:
        lease = take_lock(self._here.profile.directory / "locks" / "subscriber")
        if lease is None:  # another process of this agent takes mail in for all
            return
        try:
            try:
                await self._receive(need)
            except GenerationStale:
                self._reach.close()
                self._notice(renew_vault(self._here))
                await self._receive(need)
        finally:
            os.close(lease)

    async def _receive(self, need: Need) -> None:
        here, live = self._here, await self._reach.live()
        wish = self._wishes()
        if not await subscribe(here, live, publish=need > Need.WATCH):
            return  # another machine is the active one
        self._is_subscribed = True
        if need > Need.WATCH:
            with suppress(AimessageError, TimeoutError):
                async with here.waiting.within(_STORE_SECONDS):
                    await store_state(here, live)
        link, copies = await self._reach.link(), RelayCopies(here)
        is_caught_up = False
        while not is_caught_up and self._wishes() == wish:  # a `listen` that wants the lease comes first
            frames = await link.pushed()
            deliveries = [frame for frame in frames if isinstance(frame, Deliver)]
            if deliveries:
                may_go = inbox.take_in(here, deliveries)
                for frame in acknowledgements(copies.over(deliveries, may_go)):
                    link.tell(frame)
            is_caught_up = any(isinstance(frame, CaughtUp) for frame in frames)
        consumers.release_what_is_due(here)

    def _wishes(self) -> int:
        with self._here.vault.reading() as vault:
            return vault.counter("listen_wish")
