"""Taking mail in without an event loop: for a command that looks and ends, or waits for nothing but mail.

What `receiver` does beside other tasks, this does alone in its thread.
"""

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta

from aimessage.client import consumers, control, inbox
from aimessage.client.account import Here
from aimessage.client.blocking import BlockingLink, BlockingReach
from aimessage.client.copies import RelayCopies, acknowledgements
from aimessage.client.delays import Delays
from aimessage.client.joining import renew_vault, subscribe
from aimessage.client.locks import take_lock
from aimessage.client.needs import Need
from aimessage.client.state import store_state
from aimessage.errors import AimessageError, GenerationStale, LinkLost, NotARelay, RelayUnreachable, Temporary
from aimessage.wire.frames import CaughtUp, Deliver

__all__ = ["Fetching"]

_STORE_SECONDS = 2.0
_SEND_SECONDS = 10.0
_SETTLE_SECONDS = 5.0
_LEASE_SECONDS = 0.2  # between tries for the lease, where another process has it
_COURTESY_SECONDS = 1.0  # what is left to the `listen` that wants the lease
_SLICE_SECONDS = 0.1  # between looks whether another process has changed the vault
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 1.0


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
                await self._fetch(need, until)
        except TimeoutError:
            if not self._is_subscribed:
                self.trouble = RelayUnreachable("the relay did not answer in time", hint="aimessage doctor")
        except AimessageError as error:
            # Who has said nothing until now may be a relay all the same: what is here already is shown.
            if not isinstance(error, Temporary) and clock.monotonic() < until:
                raise
            self.trouble = error

    async def arrivals(self, seconds: float) -> AsyncGenerator[None, None]:
        """Take mail in for *seconds*, yielding at the start (once what waits is here) and whenever there may be more.

        Raises what `Agent.listen` does. The caller's duty: close it, or the lease stays taken.
        """
        here, delays = self._here, Delays()
        until = here.clock.monotonic() + seconds
        settled_by = min(until, here.clock.monotonic() + _SETTLE_SECONDS)
        while seconds > 0:
            pause, lease = _LEASE_SECONDS, take_lock(here.profile.directory / "locks" / "subscriber")
            try:
                if lease is None:  # another process of this agent takes mail in for all
                    self.trouble = None
                else:
                    async with aclosing(self._on_link(until, settled_by)) as arrivals:
                        async for _ in arrivals:
                            delays = Delays()
                            yield
                    pause = _COURTESY_SECONDS
            except AimessageError as error:
                # A relay of ours was here: what answers in its place meanwhile (a proxy without it) passes.
                if not (isinstance(error, Temporary) or (self._is_subscribed and isinstance(error, NotARelay))):
                    raise
                pause = next(delays)
                if here.clock.monotonic() < until:  # or it is our own time that is over, not the relay that fails
                    self.trouble = error
            finally:
                if lease is not None:
                    os.close(lease)
            yield
            left = until - here.clock.monotonic()
            if left <= 0:
                return
            await self._watch_others(min(left, pause))
        yield

    async def _on_link(self, until: float, settled_by: float) -> AsyncGenerator[None, None]:
        """Receive on one link until the time is over, or a `listen` wants the lease."""
        here, clock = self._here, self._here.clock
        intake = await self._begin(until)
        if intake is None:
            return
        seen, looked_at, is_settled = here.vault.version(), 0.0, False
        while intake.is_wanted:
            now = clock.monotonic()
            if is_settled or now >= settled_by:
                if now >= until:
                    break
                if intake.has_news or here.vault.version() != seen or now - looked_at >= _LOOK_SECONDS:
                    consumers.release_what_is_due(here)
                    yield
                    await intake.pay()
                    seen, looked_at = here.vault.version(), now
            is_settled = await intake.take(min(_SLICE_SECONDS, max(until - now, 0.001))) or is_settled
        self._reach.close()  # a link that is subscribed must not go on receiving for nobody

    async def _begin(self, until: float) -> "_Intake | None":
        """Subscribe and return what takes mail in; None: the time is over."""
        here = self._here
        try:
            async with here.waiting.within(until - here.clock.monotonic()):
                try:
                    return await self._subscribed(Need.RECEIVE)
                except GenerationStale:
                    self._reach.close()
                    self._notice(renew_vault(here))
                    return await self._subscribed(Need.RECEIVE)
        except TimeoutError:
            return None

    async def _watch_others(self, seconds: float) -> None:
        """Return after *seconds*, or when another process has changed the vault."""
        here = self._here
        until, seen = here.clock.monotonic() + seconds, here.vault.version()
        while here.vault.version() == seen and (left := until - here.clock.monotonic()) > 0:
            await here.waiting.pause(min(left, _POLL_SECONDS))

    async def _fetch(self, need: Need, until: float) -> None:
        lease = take_lock(self._here.profile.directory / "locks" / "subscriber")
        if lease is None:
            return
        try:
            try:
                intake = await self._subscribed(need)
            except GenerationStale:
                self._reach.close()
                self._notice(renew_vault(self._here))
                intake = await self._subscribed(need)
            while intake is not None and intake.is_wanted and (left := until - self._here.clock.monotonic()) > 0:
                if await intake.take(left):
                    break
            consumers.release_what_is_due(self._here)
        finally:
            os.close(lease)

    async def _subscribed(self, need: Need) -> "_Intake | None":
        """Subscribe and return what takes mail in; None: another machine is the active one."""
        here, live = self._here, await self._reach.live()
        wish = _wishes(here)
        if not await subscribe(here, live, publish=need > Need.WATCH):
            return None
        self._is_subscribed, self.trouble = True, None
        if need > Need.WATCH:
            with suppress(AimessageError, TimeoutError):
                async with here.waiting.within(_STORE_SECONDS):
                    await store_state(here, live)
        return _Intake(here, live.link, wish)  # that one is subscribed: if it is lost by now, the first `take` tells


class _Intake:
    """One subscription; *has_news*: something was taken in since the last `pay`."""

    def __init__(self, here: Here, link: BlockingLink, wish: int) -> None:
        self._here = here
        self._link = link
        self._wish = wish
        self._copies = RelayCopies(here)
        self.has_news = True

    @property
    def is_wanted(self) -> bool:
        """Whether no `listen` of this agent has asked for the lease since: it comes first."""
        return _wishes(self._here) == self._wish

    async def take(self, seconds: float) -> bool:
        """Take in what comes next, in *seconds*; return whether it ends what waited at the start. Raises LinkLost."""
        waiting = self._here.waiting
        try:
            async with waiting.within(seconds):
                frames = await self._link.pushed()
        except TimeoutError:
            if self._link.is_lost:
                raise LinkLost("the relay takes nothing any more") from None
            return False
        deliveries = [frame for frame in frames if isinstance(frame, Deliver)]
        if deliveries:
            may_go = inbox.take_in(self._here, deliveries)
            self.has_news = True
            try:
                async with waiting.within(_SEND_SECONDS):
                    self._acknowledge(self._copies.over(deliveries, may_go))
            except TimeoutError:
                raise LinkLost("the relay takes nothing any more") from None
        return any(isinstance(frame, CaughtUp) for frame in frames)

    async def pay(self) -> None:
        """Send what is owed since, as far as that is quick."""
        if not self.has_news:
            return
        self.has_news = False
        with suppress(AimessageError, TimeoutError):
            async with self._here.waiting.within(_STORE_SECONDS):
                self._acknowledge(self._copies.settled())
                if control.is_owed(self._here):
                    await control.flush(self._here, self._link)

    def _acknowledge(self, deliveries: Sequence[Deliver]) -> None:
        for frame in acknowledgements(deliveries):
            self._link.tell(frame)


def _wishes(here: Here) -> int:
    with here.vault.reading() as vault:
        return vault.counter("listen_wish")
