"""Receiving for one agent: one process of it holds the lease and takes mail in for all, the others watch the vault."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from aimessage.client.account import Here
from aimessage.client.changes import Changes, Watch
from aimessage.client.connection import Connection
from aimessage.client.delays import Delays
from aimessage.client.handover import Handover
from aimessage.client.joining import renew_vault
from aimessage.client.locks import take_lock
from aimessage.client.needs import Need
from aimessage.client.subscription import Subscription
from aimessage.errors import AimessageError, GenerationStale, NotARelay, Superseded, Temporary

__all__ = ["Receiver"]

_LEASE_SECONDS = 0.2  # between tries for the lease, where another process has it
_PASSIVE_SECONDS = 5.0  # between looks whether this machine has become the active one
_LOOK_SECONDS = 0.02  # between looks whether somebody else is to receive
_COURTESY_SECONDS = 1.0  # what a helper leaves to the `listen` that wants the lease


@dataclass(eq=False)
class Receiver:
    """Belongs to one Agent; runs while `receiving` is entered at least once.

    *trouble* is what stands between us and the relay now, if anything does; it is tried again meanwhile.
    """

    here: Here
    connection: Connection
    changes: Changes
    notice: Callable[[str], None]
    _needs: list[Need] = field(default_factory=list)
    _holds: int = 0
    _wish: int = 0
    _task: "asyncio.Task[None] | None" = None
    _failure: AimessageError | None = None
    _settled: bool = False
    trouble: AimessageError | None = None
    handover: Handover = field(default_factory=Handover)

    @asynccontextmanager
    async def receiving(self, need: Need, *, until_handled: bool = False) -> AsyncIterator[Watch]:
        """Have mail taken in meanwhile, here or by another process; yield a watch on the vault.

        With *until_handled* the relay's copies live until a consumer has acknowledged them.
        """
        watch = Watch(self.changes)
        self._enter(need, until_handled=until_handled)
        try:
            yield watch
        finally:
            self._needs.remove(need)
            self._holds -= until_handled
            if not self._needs:
                await self._stop()

    async def next(self, watch: Watch, seconds: float) -> None:
        """Return after a change of the vault, or after *seconds*. Raises what ended the receiving."""
        self.check()
        await watch.next(seconds)
        self.check()

    def check(self) -> None:
        """Return nothing while mail is received. Raises what ended it."""
        if self._failure is not None:
            raise self._failure
        if self._task is not None and self._task.done():
            self._task.result()  # it ends by a failure only; our own bug must not become silence

    @property
    def is_running(self) -> bool:
        """Whether mail is being received, and what is owed sent meanwhile."""
        return self._task is not None

    @property
    def settled(self) -> bool:
        """Whether all that waited at the relay is in the vault, as far as this process can do something for it."""
        return self._settled

    async def settle(self, need: Need, limit: timedelta) -> None:
        """Have what waits at the relay taken in; return when that is done, or after *limit*. Raises what ended it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + limit.total_seconds()
        async with self.receiving(need) as watch:
            while not self.settled and loop.time() < until:
                await self.next(watch, until - loop.time())

    def _enter(self, need: Need, *, until_handled: bool) -> None:
        if need is Need.LISTEN and Need.LISTEN not in self._needs:
            with self.here.vault.transaction() as vault:
                self._wish = vault.bump("listen_wish")
        self._needs.append(need)
        self._holds += until_handled
        if self._task is None:
            self._failure, self._settled, self.trouble = None, False, None
            self._task = asyncio.create_task(self._run())

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})  # not the task itself: its cancellation is not ours, and ours must not be lost

    async def _run(self) -> None:
        progress = _Progress()
        try:
            while True:
                try:
                    await self._turn(progress)
                except GenerationStale:
                    self.connection.close()
                    self.notice(renew_vault(self.here))
                except AimessageError as error:
                    # A relay of ours was here: what answers in its place meanwhile (a proxy without it) passes.
                    if not (isinstance(error, Temporary) or (progress.met and isinstance(error, NotARelay))):
                        raise
                    self.trouble = error
                    self._set_settled()  # as far as can be
                    await asyncio.sleep(next(progress.delays))
        except AimessageError as error:
            self._failure = error
        finally:
            self.changes.tell()

    async def _turn(self, progress: "_Progress") -> None:
        """Hold the lease and receive, until something is in the way; or leave it to whoever has it."""
        self._require_newest_listen()
        lease = take_lock(self.here.profile.directory / "locks" / "subscriber")
        if lease is None:
            self.trouble = None  # whoever receives for us has its own
            self._set_settled()
            await asyncio.sleep(_LEASE_SECONDS)
            return
        try:
            pause = await self._receive(progress)
        finally:
            os.close(lease)
        await asyncio.sleep(pause)

    async def _receive(self, progress: "_Progress") -> float:
        """Receive until another process or a stronger need comes; return how long to leave the lease to others."""
        wish = self._wishes()
        connected = await self.connection.get(fresh=True)
        progress.met = True
        subscription = Subscription(self.here, connected, self.changes, self.handover)
        if not await subscription.begin(publish=max(self._needs) > Need.WATCH):
            self._set_settled()
            return _PASSIVE_SECONDS
        self.trouble = None
        progress.delays = Delays()  # a link that was good: the next loss starts with a short wait again
        try:
            async with asyncio.TaskGroup() as tasks:
                work = (subscription.take_in(lambda: self._holds > 0, self._set_settled), subscription.keep_up())
                workers = [tasks.create_task(each) for each in work]
                pause = await self._until_wanted_elsewhere(wish, subscription)
                for worker in workers:
                    worker.cancel()
        except BaseExceptionGroup as several:
            raise _first(several) from None
        finally:
            self.connection.close()  # a link that is subscribed must not go on receiving for nobody
        return pause

    async def _until_wanted_elsewhere(self, wish: int, subscription: Subscription) -> float:
        watch = Watch(self.changes)
        while True:
            self._require_newest_listen()
            if max(self._needs) < Need.LISTEN and self._wishes() != wish:
                return _COURTESY_SECONDS
            if max(self._needs) > Need.WATCH and not subscription.is_published:
                return 0.0
            await watch.next(60.0)
            await asyncio.sleep(_LOOK_SECONDS)  # a busy agent changes a thousand times a second

    def _require_newest_listen(self) -> None:
        if Need.LISTEN in self._needs and self._wishes() != self._wish:
            raise Superseded("another listen of this agent has taken over")

    def _wishes(self) -> int:
        with self.here.vault.reading() as vault:
            return vault.counter("listen_wish")

    def _set_settled(self) -> None:
        if not self._settled:
            self._settled = True
            self.changes.tell()


@dataclass(slots=True)
class _Progress:
    """How far receiving has come: whether the pinned relay has let us in, and how long to wait after a loss."""

    met: bool = False
    delays: Delays = field(default_factory=Delays)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
