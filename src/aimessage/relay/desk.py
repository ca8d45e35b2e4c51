"""What every connection shares: the relay's services behind one counter, and each request's way to its service."""

from collections.abc import Collection, Coroutine
from datetime import timedelta
from math import ceil
from typing import Protocol, assert_never

from aimessage import __version__
from aimessage.clock import Clock, milliseconds
from aimessage.crypto.random import Entropy
from aimessage.errors import Blocked, RateLimited, Temporary, Unsupported
from aimessage.relay.auth import Authenticator, Challenge
from aimessage.relay.config import RelayConfig
from aimessage.relay.delivery import Delivery
from aimessage.relay.directory import DirectoryDesk
from aimessage.relay.hub import Hub, Neighbour
from aimessage.relay.limits import Gate
from aimessage.relay.lobby import Guest
from aimessage.relay.metrics import Metrics
from aimessage.relay.stillness import Stillness
from aimessage.stores.ports import Mailboxes, Refusal, Registered, Standing, Store
from aimessage.types import Username, VaultId
from aimessage.wire.codec import UnknownFrame
from aimessage.wire.frames import (
    Acknowledge,
    ClientFrame,
    FetchBundle,
    FetchState,
    ListUsers,
    Post,
    Prove,
    Proved,
    Publish,
    Refused,
    Register,
    RelayFrame,
    StockPairs,
    StoreState,
    Subscribe,
    Subscribed,
    Welcome,
)
from aimessage.wire.limits import ANNOUNCED_MESSAGE_BYTES, FRAMES_PER_MESSAGE, Limits
from aimessage.wire.link import LinkFailed

__all__ = ["Desk", "Link", "Owner"]

_NONCE_BYTES = 32
_ID_BYTES = 16
_SHUT_OUT = "the operator of this relay has shut this account out"


class Link(Neighbour, Protocol):
    """A connection, as the service counts it."""

    guest: Guest


class Owner(Protocol):
    """The service: it owns every task and counts the links."""

    metrics: Metrics

    def own(self, work: Coroutine[None, None, None]) -> None:
        """Run *work* in the service's task group."""
        ...

    def arrived(self, link: Link) -> None:
        """A link is open; it counts as not logged in."""
        ...

    def logged_in(self, link: Link) -> None:
        """The link has proved itself."""
        ...

    def left(self, link: Link) -> None:
        """The link is over."""
        ...


class Desk:
    """Built once a relay; connections ask it for everything."""

    def __init__(self, config: RelayConfig, store: Store, clock: Clock, entropy: Entropy, owner: Owner) -> None:
        self.config = config
        self.clock = clock
        self.hub = Hub()
        self.gate = Gate(config.rate_global, config.limits, clock, store.budgets)
        self.metrics = owner.metrics
        self.stillness = Stillness()
        self.delivery = Delivery(store, self.hub, clock, self.gate, self.metrics, self.stillness)
        self._store = store
        self.entropy = entropy
        self._auth = Authenticator(config, store, clock)
        self._directory = DirectoryDesk(store, self.hub, owner.metrics, self.gate)
        self.own = owner.own
        self.arrived = owner.arrived
        self.logged_in = owner.logged_in
        self.left = owner.left

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    @property
    def mailboxes(self) -> Mailboxes:
        """The store's mailboxes."""
        return self._store.mailboxes

    def challenge(self) -> Challenge:
        """Return a fresh nonce."""
        return Challenge(self.entropy(_NONCE_BYTES), self.clock.monotonic())

    def welcome(self, challenge: Challenge) -> Welcome:
        """Return the first frame of a link."""
        rate = self.config.rate_connection
        bounds = self.config.limits
        limits = Limits(
            message_bytes=bounds.message_bytes or ANNOUNCED_MESSAGE_BYTES,
            frames_per_message=bounds.message_frames or FRAMES_PER_MESSAGE,
            sealed_bytes=bounds.sealed_bytes,
            requests_per_second=rate,
            request_burst=max(1, int(2 * rate)),
            heartbeat_seconds=ceil(bounds.heartbeat_seconds) or 45,
            message_ttl_seconds=self.config.quotas.message_ttl_ms // 1000,
        )
        now = milliseconds(self.clock.now())
        return Welcome(
            challenge.nonce, self._store.relay_id, "aimessage-server", __version__, now, limits, features=["state"]
        )

    async def authenticate(self, proof: Prove | Register, challenge: Challenge, address: str) -> Registered:
        """Return the account that logs in. Raises what `Authenticator` raises, RateLimited, and Blocked."""
        account = await self._proof(proof, challenge, address)
        if await self.store.standings.of(account.username) is not Standing.GOOD:  # told to its owner only
            raise Blocked(_SHUT_OUT)
        return account

    async def _proof(self, proof: Prove | Register, challenge: Challenge, address: str) -> Registered:
        if isinstance(proof, Prove):
            return await self._auth.prove(proof, challenge)
        wait = await self.gate.registrations.take(address) or self.gate.requests.take(address)
        if wait:
            self.metrics.limit("registrations")
            raise RateLimited("too many registrations just now", retry_after=timedelta(seconds=wait))
        with self.stillness.changing():
            return await self._auth.register(proof, challenge)

    async def proved(self, account: Registered) -> Proved:
        """Return what a login is told about its own account."""
        pairs = await self._store.pairs.count(account.username)
        version, _ = await self._store.states.get(account.username)
        return Proved(pairs, account.epoch, account.vault_id, version)

    async def join(self, owner: Username, link: Link) -> None:
        """*link* is logged in as *owner*."""
        self.hub.join(owner, link)
        if await self.store.standings.of(owner) is not Standing.GOOD:  # decided since its login
            link.say_bye(Blocked.code, _SHUT_OUT)

    async def arrive(self, owner: Username) -> None:
        """A link of *owner* is about to receive: from now on it is online."""
        await self._store.presence.arrive(owner)

    async def leave(self, owner: Username, link: Link, *, arrived: bool) -> None:
        """Undo `join`, and `arrive` if the link has *arrived*."""
        self.hub.leave(owner, link)
        if arrived:
            await self._store.presence.leave(owner)

    async def change_standing(self, owner: Username, standing: Standing) -> None:
        """Decide about an account, from now on and on every link of its."""
        with self.stillness.changing():
            await self.store.standings.set(owner, standing)
        self.delivery.forget(owner)
        if standing is not Standing.GOOD:
            self.hub.expel(owner, Blocked.code, _SHUT_OUT)

    async def activate(self, owner: Username, request: Subscribe) -> Subscribed | Refused:
        """Make this vault's subscription the newest one. Raises RelayUnavailable."""
        if len(request.vault_id) != _ID_BYTES or not 0 <= request.generation < 1 << 63:
            return Refused(request.id, "bad_value", "the subscription is malformed")
        with self.stillness.changing():
            result = await self._store.subscriptions.activate(owner, VaultId(request.vault_id), request.generation)
        if isinstance(result, Refusal):
            return Refused(request.id, result.code, result.message, result.retry_after)
        waiting, _ = await self._store.mailboxes.depth(owner)
        return Subscribed(request.id, result.number, waiting)

    async def is_newest(self, owner: Username, subscription: int) -> bool:
        """Return whether *subscription* is the mailbox's newest, on any relay."""
        current = await self._store.subscriptions.current(owner)
        return current is not None and current.number == subscription

    def subscribed_elsewhere(self, owners: Collection[Username]) -> None:
        """*owners* may have a newer subscription on another relay: look, and close the older one here."""
        for owner in owners:
            if self.hub.subscription(owner) is not None:
                self.own(self._yield_to_newer(owner))

    async def _yield_to_newer(self, owner: Username) -> None:
        try:
            current = await self._store.subscriptions.current(owner)
        except Temporary:  # the store tells again
            return
        if current is not None:
            self.hub.supersede(owner, current.number)

    async def request(self, owner: Username, event: ClientFrame | UnknownFrame | LinkFailed) -> RelayFrame:
        """Return the answer to one request. Raises AimessageError: the request is refused with its code."""
        match event:
            case ListUsers():
                return await self._directory.list_users(event)
            case FetchState():
                return await self._directory.fetch_state(owner, event)
            case Publish() | StockPairs() | FetchBundle() | StoreState():
                with self.stillness.changing():
                    return await self._change(owner, event)
            case Post() | Subscribe() | Acknowledge() | Prove() | Register() | UnknownFrame() | LinkFailed():
                raise Unsupported("this request has its own way")
            case _:
                assert_never(event)

    async def _change(self, owner: Username, event: Publish | StockPairs | FetchBundle | StoreState) -> RelayFrame:
        directory = self._directory
        match event:
            case Publish():
                return await directory.publish(owner, event)
            case StockPairs():
                return await directory.stock_pairs(owner, event)
            case FetchBundle():
                return await directory.fetch_bundle(owner, event)
            case StoreState():
                return await directory.store_state(owner, event)
