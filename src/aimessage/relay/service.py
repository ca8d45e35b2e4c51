"""One running relay: it owns every task, counts every socket, judges every handshake, and drains at the end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from math import ceil

from aimessage.clock import Clock, milliseconds
from aimessage.crypto.random import Entropy
from aimessage.errors import ConfigInvalid, RelayUnavailable, StoreDamaged, Temporary
from aimessage.relay.admin import operator_door, store_requests
from aimessage.relay.config import RelayConfig
from aimessage.relay.connection import Connection
from aimessage.relay.desk import Desk, Link
from aimessage.relay.governing import relay_requests
from aimessage.relay.http import Request, Response, Upgrade, client_address, is_in, may_read_metrics, route
from aimessage.relay.landing import Landing, listen
from aimessage.relay.limits import BOUNDS, Bounds, RelayLimits, block_of
from aimessage.relay.lobby import Guest, Lobby
from aimessage.relay.log import event_log
from aimessage.relay.metrics import Gauges, Metrics
from aimessage.relay.tls import Tls, load_tls
from aimessage.relay.transport import Socket
from aimessage.relay.wiring import open_store
from aimessage.stores.ports import Store
from aimessage.wire.limits import ANNOUNCED_MESSAGE_BYTES

__all__ = ["Service", "serving"]

_LINK_ID_BYTES = 6


class Service:
    """The judge behind every door and the owner of every link."""

    bounds: Bounds = BOUNDS

    def __init__(
        self, config: RelayConfig, store: Store, clock: Clock, entropy: Entropy, tasks: asyncio.TaskGroup
    ) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._tasks = tasks
        self._links: set[Link] = set()
        self._owned: set[asyncio.Task[None]] = set()
        self.limits: RelayLimits = config.limits
        self._connection_bound = config.limits.connection_bound()
        self._trusted = config.trusted_proxies
        self._metrics_for = config.metrics
        self._lobby = Lobby(config.limits.unauthenticated, lambda: self.metrics.limit("sockets"))
        self._members: dict[Link, str] = {}  # who is logged in, and where from
        self._members_of: Counter[str] = Counter()
        self._draining = False
        self._over = False
        self._empty = asyncio.Event()
        self.metrics = Metrics()
        store.observe_commits(self.metrics.committed)
        self.desk = Desk(config, store, clock, entropy, self)
        store.observe_changes(self.desk.hub.wake, self.desk.subscribed_elsewhere)
        self.port = 0
        self.tls: Tls | None = None

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
        self.metrics.connected()
        self._links.add(link)

    def logged_in(self, link: Link) -> None:
        """The link has proved itself."""
        self._lobby.leave(link.guest)
        self._members[link] = link.guest.address
        self._members_of[link.guest.address] += 1

    def left(self, link: Link) -> None:
        """The link is over."""
        self._lobby.leave(link.guest)
        address = self._members.pop(link, None)
        if address is not None:
            _one_less(self._members_of, address)
        self._links.discard(link)
        if not self._links:
            self._empty.set()

    def admit(self, peer: str, cut: Callable[[], object]) -> Guest | Response:
        """Count one more socket that is not logged in, and may be cut; if there are too many, return what to answer."""
        address, seconds = block_of(peer), self.limits.login_seconds
        if not is_in(peer, self._trusted) and _is_full(self._sockets_of(address), self.limits.connections_per_address):
            return self._too_many_of_one()
        guest = Guest(
            self._entropy(_LINK_ID_BYTES).hex(),
            peer,
            address,
            asyncio.get_running_loop().time() + seconds if seconds else None,
            cut,
        )
        if _is_full(len(self._lobby) + len(self._members), self._connection_bound) or not self._lobby.enter(guest):
            self.metrics.limit("sockets")
            return Response(503, b"too many connections\n", headers={"Retry-After": "5"})
        return guest

    def dismiss(self, guest: Guest) -> None:
        """The socket is gone."""
        self._lobby.leave(guest)

    def seat(self, guest: Guest, request: Request) -> None:
        """Count *guest* for the address that answers for *request*, its first."""
        self._lobby.move(guest, block_of(client_address(request, guest.peer, self._trusted)))

    def _sockets_of(self, address: str) -> int:
        return self._lobby.of(address) + self._members_of[address]

    def _too_many_of_one(self) -> Response:
        self.metrics.limit("address_sockets")
        return Response(429, b"too many connections from this address\n", headers={"Retry-After": "5"})

    async def judge(self, request: Request, guest: Guest) -> Response | Upgrade:
        """Return the answer to *request* under the global rate; probes have a rate of their own."""
        address, most = guest.address, self.limits.connections_per_address
        if request.is_probe:
            wait = self.desk.gate.probes.take(address)
        elif request.path == "/metrics":
            wait = self.desk.gate.pages.take(address)
        else:
            wait = self.desk.gate.requests.take(address)
        if wait:
            self.metrics.limit("http_rate")
            return Response(429, b"too many requests\n", headers={"Retry-After": str(ceil(wait))})
        by_trusted = is_in(guest.peer, self._trusted)
        if request.path == "/metrics" and not may_read_metrics(
            request, address, self._metrics_for, by_trusted=by_trusted
        ):
            return Response(403, b"this page is not for everybody: see --metrics\n")
        unready = await self._unready() if request.path == "/ready" else ""
        page = self.metrics.page(await self.gauges()) if request.path == "/metrics" else b""
        verdict = route(request, unready=unready, metrics=page)
        if self._draining and isinstance(verdict, Upgrade):
            return Response(503, b"this relay is stopping\n", headers={"Retry-After": "2"})
        if isinstance(verdict, Upgrade) and 0 < most < self._sockets_of(address):
            return self._too_many_of_one()  # behind a proxy, only now is it known whose socket this is
        return verdict

    async def _unready(self) -> str:
        """Return why nothing new should be sent here, "" if all is well."""
        if self._draining:
            return "this relay is stopping"
        if self.desk.stillness.reason:
            return self.desk.stillness.reason
        refusal = await self._store.check_writable()
        return "" if refusal is None else refusal.message

    async def gauges(self) -> Gauges:
        """Return what is so at this moment."""
        entries, size = await self._store.mailboxes.totals()
        return Gauges(len(self._links), len(self._links) - len(self._members), entries, size, await self._unready())

    def new_socket(self, guest: Guest) -> Socket:
        """Return the socket for an accepted upgrade, with a connection behind it."""
        return Socket(
            Connection(self.desk, guest), BOUNDS, self.limits, self.limits.message_bytes or ANNOUNCED_MESSAGE_BYTES
        )

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

    async def share(self) -> None:
        """Keep our part of the rate that all relays on the store have together."""
        while True:
            with suppress(Temporary):  # as it was, until the store answers again
                self.desk.gate.requests.share_with(await self._store.presence.relays())
            await asyncio.sleep(BOUNDS.share_seconds)

    async def drain(self) -> None:
        """Tell every link to come back later, and give them a moment to go."""
        self._draining = True
        self._empty.clear()
        for link in list(self._links):
            share = int.from_bytes(self._entropy(2), "big") / 65_536
            back = BOUNDS.return_seconds + share * BOUNDS.return_spread_seconds
            link.say_bye("relay_unavailable", "this relay is stopping", back)
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


def _is_full(count: int, most: int) -> bool:
    return 0 < most <= count


def _one_less(counts: Counter[str], address: str) -> None:
    counts[address] -= 1
    if counts[address] <= 0:
        del counts[address]


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

    Raises StoreDamaged, RelayUnavailable: the store or the address cannot be had; ConfigInvalid: TLS cannot, or the
    store has moved elsewhere. A group that holds StoreDamaged: the store was found damaged later.
    """
    tls = load_tls(config.tls_cert, config.tls_key)
    store = await open_store(config, entropy=entropy, clock=clock)
    try:
        await _require_in_use(store)
        async with asyncio.TaskGroup() as tasks:
            service = Service(config, store, clock, entropy, tasks)
            service.tls = tls
            server, service.port = await _listen(service, config)
            duties = (service.desk.delivery.run(), service.sweep(), service.share())
            standing = [tasks.create_task(duty) for duty in duties]
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


async def _require_in_use(store: Store) -> None:
    """A store that has moved could serve its one-time pairs a second time. Raises ConfigInvalid."""
    successor = await store.contents.successor()
    if successor:
        raise ConfigInvalid(
            f"this store has moved to {successor}",
            hint="start the relay with that as --store; a restored backup of this one may run again",
        )


def _operators(config: RelayConfig, store: Store, service: Service) -> AbstractAsyncContextManager[None]:
    if config.store == "memory":  # it has no directory, and nothing to keep
        return nullcontext()
    return operator_door(
        config.db_path, store_requests(store) | relay_requests(service.desk, service.gauges), service.own
    )


async def _listen(service: Service, config: RelayConfig) -> tuple[Landing, int]:
    try:
        return await listen(service, config.host, config.port, service.tls.context if service.tls else None)
    except OSError as error:
        raise RelayUnavailable(
            f"cannot listen on {config.host}:{config.port}: {error.strerror or 'no such address'}",
            hint="choose another port with --port, or stop the program that has this one",
        ) from None
