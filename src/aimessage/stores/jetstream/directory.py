"""Usernames by compare-and-set, one-time pairs by deletion: whoever deletes a pair has claimed it."""

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import sha256

from aimessage.clock import Clock
from aimessage.crypto.random import Entropy
from aimessage.errors import RecipientUnknown
from aimessage.stores.jetstream.accounts import contended
from aimessage.stores.jetstream.bus import Bus, Conflict, Message, expecting
from aimessage.stores.jetstream.layout import PAIRS, pair, record
from aimessage.stores.jetstream.records import Change, Records
from aimessage.stores.ports import Registered
from aimessage.stores.shapes import dump_account, load_account
from aimessage.types import Username, VaultId

__all__ = ["JetStreamDirectory", "JetStreamPairs"]

_TRIES = 50
_NAMES_SECONDS = 5.0  # how old a list of all names may be, as to what other relays have registered


class JetStreamDirectory:
    """`ports.Directory`; drops stale stocks of *pairs* when a bundle is replaced."""

    def __init__(self, records: Records, pairs: "JetStreamPairs", clock: Clock) -> None:
        self._records = records
        self._pairs = pairs
        self._clock = clock
        self._names: list[Username] = []
        self._listed_at: float | None = None

    async def register(self, account: Registered) -> Registered:
        """Claim a username and return what stands there now: *account*, or whoever was first. Atomic."""
        for _ in range(_TRIES):
            if await self.claim(account):
                return account
            if (standing := await self.find(account.username)) is not None:
                return standing
        raise contended()

    async def claim(self, account: Registered, *together: Change) -> bool:
        """Claim a free username, with other changes or not at all; return whether it was. Raises RelayUnavailable."""
        claimed = await self._records.put(
            [*together, Change(record("account", account.username), dump_account(account), 0)]
        )
        if claimed:
            self._listed_at = None
        return claimed

    async def find(self, username: Username) -> Registered | None:
        """Return the account of this name, if there is one. Raises StoreDamaged, RelayUnavailable."""
        kept = await self._records.get(record("account", username))
        return load_account(username, kept.data) if kept.revision else None

    async def publish(self, username: Username, *, bundle: bytes, vault_id: VaultId, epoch: int) -> None:
        """Replace the account's bundle and drop the stock of any other vault. Raises RecipientUnknown."""
        subject = record("account", username)
        for _ in range(_TRIES):
            kept = await self._records.get(subject)
            if not kept.revision:
                raise RecipientUnknown(f"nobody is registered as {username}")
            before = load_account(username, kept.data)
            account = Registered(username, before.signing_key, bundle, vault_id, epoch, before.registered_at)
            if await self._records.put([Change(subject, dump_account(account), kept.revision)]):
                await self._pairs.keep_only(username, vault_id)
                return
        raise contended()

    async def names(self, *, after: str, limit: int) -> list[Username]:
        """Return up to *limit* usernames above *after*, in order. What another relay registers may come 5 s late."""
        now = self._clock.monotonic()
        if self._listed_at is None or now - self._listed_at >= _NAMES_SECONDS:
            subjects = await self._records.names(record("account", "*"))
            self._names = sorted(Username(subject.rpartition(".")[2]) for subject in subjects)
            self._listed_at = now
        at = bisect_right(self._names, after)
        return self._names[at : at + limit]


class JetStreamPairs:
    """`ports.Pairs`; each claim begins at a random place of the stock, so that claims seldom meet."""

    def __init__(self, bus: Bus, entropy: Entropy) -> None:
        self._bus = bus
        self._entropy = entropy

    async def stock(self, owner: Username, vault_id: VaultId, pairs: Sequence[bytes]) -> int:
        """Add encoded pairs of this vault and return the stock's size. Raises RelayUnavailable."""
        wanted = {pair(owner, vault_id, sha256(octets).hexdigest()[:32]): octets for octets in pairs}
        for _ in range(_TRIES):
            standing = await self._bus.subjects(PAIRS, pair(owner, vault_id, ">"))
            missing = [Message(it, octets, expecting(0)) for it, octets in wanted.items() if it not in standing]
            try:
                if missing:
                    await self._bus.publish(missing)
                break
            except Conflict:  # another relay has stocked one of them meanwhile
                continue
        else:
            raise contended()
        return await self.count(owner)

    async def claim(self, owner: Username, vault_id: VaultId) -> bytes | None:
        """Take one pair of this vault out of the stock, for good; None if there is none. Raises RelayUnavailable."""
        for _ in range(_TRIES):
            stock = await self._bus.subjects(PAIRS, pair(owner, vault_id, ">"))
            if not stock:
                return None
            start = int.from_bytes(self._entropy(4), "big") % len(stock)
            for subject in [*stock[start:], *stock[:start]]:
                found = await self._bus.get(PAIRS, {"last_by_subj": subject})
                if found is not None and await self._bus.delete(PAIRS, found.sequence):
                    return found.data
        raise contended()

    async def count(self, owner: Username) -> int:
        """Return the stock's size. Raises RelayUnavailable."""
        return len(await self._subjects(owner))

    async def keep_only(self, owner: Username, vault_id: VaultId) -> None:
        """Drop the stock of every vault of *owner* but this one. Raises RelayUnavailable."""
        others = {subject.rpartition(".")[0] for subject in await self._subjects(owner)}
        for start in others - {pair(owner, vault_id, ">").removesuffix(".>")}:
            await self._bus.purge(PAIRS, f"{start}.>")

    async def _subjects(self, owner: Username) -> list[str]:
        return await self._bus.subjects(PAIRS, f"aimessage.pair.{owner}.>")
