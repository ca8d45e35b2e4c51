"""What is public about users: bundles, one-time pairs, who is there; and the sealed state that each one keeps here."""

from aimessage.crypto import signing
from aimessage.errors import BadValue, DecryptionFailed, MalformedOctets, UsernameMalformed
from aimessage.relay.auth import verified_bundle
from aimessage.relay.hub import Hub
from aimessage.relay.limits import BOUNDS, Gate
from aimessage.relay.metrics import Metrics
from aimessage.stores.ports import Registered, Standing, Store
from aimessage.types import Username, parse_username
from aimessage.wire.bundles import OneTimePair
from aimessage.wire.frames import (
    BundleAnswer,
    Done,
    FetchBundle,
    FetchState,
    ListUsers,
    PairsLow,
    Publish,
    Refused,
    RelayFrame,
    StateAnswer,
    StockPairs,
    StoreState,
    UserRow,
    Users,
)
from aimessage.wire.limits import BLOB_BYTES, PAIRS_PER_STOCK, USERS_PER_PAGE

__all__ = ["DirectoryDesk"]


class DirectoryDesk:
    """Answers the requests about the directory; every method returns the request's one answer."""

    def __init__(self, store: Store, hub: Hub, metrics: Metrics, gate: Gate) -> None:
        self._gate = gate
        self._store = store
        self._metrics = metrics
        self._hub = hub

    async def publish(self, owner: Username, request: Publish) -> RelayFrame:
        """Replace our bundle. Raises BadValue: it is not ours, or its epoch is lower than the standing one's."""
        account = await self._account(owner)
        bundle = verified_bundle(request.bundle, self._store.relay_id, owner)
        if bundle.signing_key != account.signing_key:
            raise BadValue("the bundle is under another identity key")
        if bundle.epoch < account.epoch:
            raise BadValue("the bundle is older than the one that stands here")
        await self._store.directory.publish(owner, bundle=request.bundle, vault_id=bundle.vault_id, epoch=bundle.epoch)
        return Done(request.id)

    async def stock_pairs(self, owner: Username, request: StockPairs) -> RelayFrame:
        """Add one-time pairs to our stock, up to its bound. Raises BadValue: too many, or one is not good."""
        if len(request.pairs) > PAIRS_PER_STOCK:
            raise BadValue(f"at most {PAIRS_PER_STOCK} pairs at once")
        account = await self._account(owner)
        for octets in request.pairs:
            _require_pair(octets, account)
        room = max(0, PAIRS_PER_STOCK - await self._store.pairs.count(owner))
        count = await self._store.pairs.stock(owner, account.vault_id, request.pairs[:room] if room else [])
        return Done(request.id, count)

    async def fetch_bundle(self, owner: Username, request: FetchBundle) -> RelayFrame:
        """Return a peer's bundle, with one of its pairs while there are any and they are not drained too fast."""
        if wait := await self._gate.lookups.take(owner):
            self._metrics.limit("lookups")
            return Refused(request.id, "rate_limited", "too many look-ups by this identity", wait)
        account = await self._find(request.username)
        if account is None:
            return Refused(request.id, "recipient_unknown", "nobody with this username is registered here")
        self._gate.acquaintances.meet(owner, account.username)
        pair = await self._claim(account) if request.claim_pair else None
        return BundleAnswer(request.id, account.bundle, pair or b"")

    async def list_users(self, request: ListUsers) -> RelayFrame:
        """Return one page of names."""
        online = await self._store.presence.online()
        if request.everyone:
            names = await self._store.directory.names(after=request.after, limit=USERS_PER_PAGE + 1)
        else:
            names = sorted(name for name in online if name > request.after)[: USERS_PER_PAGE + 1]
        gone = await self._removed()
        page = [UserRow(name, name in online) for name in names[:USERS_PER_PAGE] if name not in gone]
        return Users(request.id, page, more=len(names) > USERS_PER_PAGE)

    async def store_state(self, owner: Username, request: StoreState) -> RelayFrame:
        """Keep our sealed state. Raises BadValue: an impossible version. A lower one than the kept is refused."""
        if len(request.blob) > BLOB_BYTES:
            return Refused(request.id, "too_large", f"the sealed state has at most {BLOB_BYTES} bytes")
        if not 0 < request.version < 1 << 63:
            raise BadValue("the version of the state is out of range")
        if not await self._store.states.put(owner, request.version, request.blob):
            return Refused(request.id, "denied", "the kept state is as new or newer")
        return Done(request.id)

    async def fetch_state(self, owner: Username, request: FetchState) -> RelayFrame:
        """Return our sealed state."""
        version, blob = await self._store.states.get(owner)
        return StateAnswer(request.id, version, blob)

    async def _claim(self, account: Registered) -> bytes | None:
        if await self._gate.pairs.take(account.username):
            self._metrics.limit("pairs")
            return None
        pair = await self._store.pairs.claim(account.username, account.vault_id)
        left = await self._store.pairs.count(account.username)
        if left < BOUNDS.pairs_low:
            self._hub.push(account.username, [PairsLow(left)])
        return pair

    async def _removed(self) -> frozenset[Username]:
        standings = await self._store.standings.all()
        return frozenset(name for name, standing in standings.items() if standing is Standing.REMOVED)

    async def _find(self, raw: str) -> Registered | None:
        try:
            username = parse_username(raw)
        except UsernameMalformed:
            return None
        removed = await self._store.standings.of(username) is Standing.REMOVED
        return None if removed else await self._store.directory.find(username)

    async def _account(self, owner: Username) -> Registered:
        account = await self._store.directory.find(owner)
        if account is None:
            raise BadValue("this account is not registered")
        return account


def _require_pair(octets: bytes, account: Registered) -> None:
    try:
        pair = OneTimePair.parse(octets)
        signing.verify(account.signing_key, pair.signature, signing.pair_transcript(pair.content))
    except (MalformedOctets, DecryptionFailed):
        raise BadValue("a one-time pair is malformed or its signature is not good") from None
    if pair.vault_id != account.vault_id:
        raise BadValue("a one-time pair is of another vault than the published bundle")
