"""One running relay: it owns every task, counts every socket, judges every handshake, and drains at the end."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from math import ceil

from aimessage.clock import Clock, milliseconds
from aimessage.crypto.random import Entropy
from aimessage.errors import RelayUnavailable, StoreDamaged, Temporary
from aimessage.relay.admin import operator_door, store_requests
from aimessage.relay.config import RelayConfig
from aimessage.relay.connection import Connection
from aimessage.relay.desk import Desk, Link
from aimessage.relay.http import Request, Response, Upgrade, route
from aimessage.relay.limits import BOUNDS, Bounds
from aimessage.relay.log import event_log
from aimessage.relay.transport import Socket, listen
from aimessage.relay.wiring import open_store
from aimessage.stores.ports import Store
from aimessage.wire.limits import ANNOUNCED_MESSAGE_BYTES

__all__ = ["Service", "serving"]


class Service:
    """The judge behind every door and the owner of every link."""

    bounds: Bounds = BOUNDS

    def __init__(
        self, config: RelayConfig, store: Store, clock: Clock, entropy: Entropy, tasks: asyncio.TaskGroup
    ) -> None:
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._links: set[Link] = set()
        self._strangers: set[Link] = set()
        self._owned: set[asyncio.Task[None]] = set()
        self._at_the_door = 0
        self._draining = False
        self._over = False
        self._empty = asyncio.Event()
        self.desk = Desk(config, store, clock, entropy, self)
        self.port = 0

    def own(self, work: Coroutine[None, None, None]) -> None:
        """Run *work* in the relay's task group, until it ends or the relay does."""
        if self._over:
            work.close()
            return
        task = self._tasks.create_task(_bounded(work))
        self._owned.add(task)
        task.add_done_callback(self._owned.discard)

    def arrived(self, link: Link) -> None:
        """A link is open; it counts as not logged in."""
        self._links.add(link)
        self._strangers.add(link)

    def logged_in(self, link: Link) -> None:
        """The link has proved itself."""
        self._strangers.discard(link)

    def left(self, link: Link) -> None:
        """The link is over."""
        self._links.discard(link)
        self._strangers.discard(link)
        if not self._links:
            self._empty.set()

    def admit_socket(self) -> bool:
        """Count one more socket that is not logged in; False if there are too many."""
        strangers = self._at_the_door + len(self._strangers)
        if strangers >= BOUNDS.unauthenticated_sockets or len(self._links) >= BOUNDS.sockets:
            return False
        self._at_the_door += 1
        return True

    def forget_socket(self) -> None:
        """The socket has left the door."""
        self._at_the_door -= 1

    async def judge(self, request: Request) -> Response | Upgrade:
        """Return the answer to *request* under the global rate; probes have a rate of their own."""
        if request.is_probe:
            rate = BOUNDS.probes_per_second
            wait = await self._store.budgets.take("probes", rate=rate, burst=rate)
        else:
            wait = await self.desk.take_global()
        if wait:
            return Response(429, b"too many requests\n", headers={"Retry-After": str(ceil(wait))})
        ready = not self._draining and (request.path != "/ready" or await self._store.check_writable() is None)
        verdict = route(request, ready=ready)
        if self._draining and isinstance(verdict, Upgrade):
            return Response(503, b"this relay is stopping\n", headers={"Retry-After": "2"})
        return verdict

    def new_socket(self) -> Socket:
        """Return the socket for an accepted upgrade, with a connection behind it."""
        return Socket(Connection(self.desk), BOUNDS, ANNOUNCED_MESSAGE_BYTES)

    async def sweep(self) -> None:
        """Delete expired mail, a bounded batch at a time. Raises StoreDamaged, also if nobody else looks."""
        while True:
            now_ms = milliseconds(self._clock.now())
            count = 0
            try:
                await self._store.check_writable()
                count = await self._store.mailboxes.expire(now_ms, limit=BOUNDS.expiry_batch)
            except Temporary:  # a full disk: what is over stays a little longer
                pass
            if count < BOUNDS.expiry_batch:
                await asyncio.sleep(BOUNDS.expiry_seconds)

    async def drain(self) -> None:
        """Tell every link to come back later, and give them a moment to go."""
        self._draining = True
        self._empty.clear()
        for link in list(self._links):
            link.say_bye("relay_unavailable", "this relay is stopping")
        if self._links:
            try:
                async with asyncio.timeout(BOUNDS.drain_seconds):
                    await self._empty.wait()
            except TimeoutError:
                event_log().warning("links left behind", count=len(self._links))

    def cancel_owned(self) -> None:
        """End what the drain has left, and begin nothing more."""
        self._over = True
        for task in self._owned:
            task.cancel()


async def _bounded(work: Coroutine[None, None, None]) -> None:
    """The task boundary: one peer's trouble never ends the relay, but damage does: it would be silent otherwise."""
    try:
        await work
    except StoreDamaged:
        raise
    except Exception as error:  # noqa: BLE001
        event_log().error("task failed", error=type(error).__name__, exc_info=error)


@asynccontextmanager
async def serving(config: RelayConfig, *, clock: Clock, entropy: Entropy) -> AsyncIterator[Service]:
    """Run a relay while the context is open; drain it at the end.

    Raises StoreDamaged, RelayUnavailable: the store or the address cannot be had. A group that holds StoreDamaged: the
    store was found damaged later.
    """
    store = await open_store(config, entropy=entropy, clock=clock)
    try:
        async with asyncio.TaskGroup() as tasks:
            service = Service(config, store, clock, entropy, tasks)
            server, service.port = await _listen(service, config)
            standing = [tasks.create_task(service.desk.delivery.run()), tasks.create_task(service.sweep())]
            try:
                async with _operators(config, store, service):
                    yield service
            finally:
                server.close()
                await service.drain()
                service.cancel_owned()
                for task in standing:
                    task.cancel()
    finally:
        await store.close()


def _operators(config: RelayConfig, store: Store, service: Service) -> AbstractAsyncContextManager[None]:
    if config.store == "memory":  # it has no directory, and nothing to keep
        return nullcontext()
    return operator_door(config.db_path, store_requests(store), service.own)


async def _listen(service: Service, config: RelayConfig) -> tuple[asyncio.Server, int]:
    try:
        return await listen(service, config.host, config.port)
    except OSError as error:
        raise RelayUnavailable(
            f"cannot listen on {config.host}:{config.port}: {error.strerror or 'no such address'}",
            hint="choose another port with --port, or stop the program that has this one",
        ) from None
