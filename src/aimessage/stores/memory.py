"""The reference store: plain dictionaries, gone with the process. Nothing here awaits, so every method is atomic."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from aimessage.clock import Clock
from aimessage.crypto.random import Entropy, system_entropy
from aimessage.errors import RecipientUnknown, Unsupported
from aimessage.stores.invitations import KEPT, TOO_MANY, is_over, usable
from aimessage.stores.ledger import CONTROL, Ledger, expired, expiry, malformed
from aimessage.stores.local import LocalBudgets, LocalPresence
from aimessage.stores.ports import (
    Budgets,
    Changed,
    Contents,
    Directory,
    Invite,
    Invites,
    Mailboxes,
    Page,
    Pairs,
    Posting,
    Presence,
    Quotas,
    Receipt,
    Refusal,
    Registered,
    Standing,
    Standings,
    States,
    Stored,
    Subscription,
    Subscriptions,
)
from aimessage.stores.turns import in_turn
from aimessage.types import MessageId, Position, RelayId, Username, VaultId

__all__ = ["MemoryStore", "open_memory_store"]

_Attempt = tuple[Username, MessageId, int]


@dataclass(slots=True)
class _Mailbox:
    next_position: int = 1
    entries: dict[Position, Stored] = field(default_factory=dict)
    attempts: dict[_Attempt, Position] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    def put(self, posting: Posting, quotas: Quotas) -> Receipt | Refusal:
        known = self.attempts.get((posting.sender, posting.message_id, posting.attempt))
        if known is not None:
            entry = self.entries[known]
            return Receipt(known, entry.accepted_at, entry.expires_at, duplicate=True)
        refusal = malformed(posting) or self.ledger.refusal(posting, quotas)
        if refusal is not None:
            return refusal
        return self._store(posting, expiry(posting, quotas), quotas)

    def _store(self, posting: Posting, expires_at: int, quotas: Quotas) -> Receipt:
        oldest = self.ledger.evict(quotas) if posting.mail_class == CONTROL else None
        if oldest is not None:
            self.remove(oldest)
        position = Position(self.next_position)
        self.next_position += 1
        sender, message_id, attempt = posting.sender, posting.message_id, posting.attempt
        self.entries[position] = Stored(
            position, sender, message_id, attempt, posting.mail_class, posting.accepted_at, expires_at, posting.sealed
        )
        self.attempts[sender, message_id, attempt] = position
        self.ledger.add(position, sender, posting.mail_class, len(posting.sealed))
        return Receipt(position, posting.accepted_at, expires_at, duplicate=False)

    def remove(self, position: Position) -> None:
        entry = self.entries.pop(position)
        del self.attempts[entry.sender, entry.message_id, entry.attempt]
        self.ledger.remove(position, entry.sender, entry.mail_class, len(entry.sealed))


class MemoryMailboxes:
    """`ports.Mailboxes` in memory."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._boxes: dict[Username, _Mailbox] = {}

    async def append(self, batch: Sequence[Posting]) -> list[Receipt | Refusal]:
        """Store each posting or refuse it, in order."""
        return in_turn(batch, lambda item: self._boxes.setdefault(item.owner, _Mailbox()).put(item, self._quotas))

    async def page(self, owner: Username, *, after: Position, now_ms: int, limit: int) -> Page:
        """Return the first undeleted, unexpired entries with a position above *after*, at most *limit*."""
        there = self._box(owner).entries.items()
        above = (entry for position, entry in there if position > after and not expired(entry.expires_at, now_ms))
        entries = list(islice(above, limit))
        return Page(entries, entries[-1].position if entries else after, len(entries) < limit)

    async def ack(self, owner: Username, entries: Sequence[tuple[Position, MessageId]]) -> int:
        """Delete the entries whose position and id both match; return how many. Idempotent."""
        box = self._box(owner)
        before = len(box.entries)
        for position, message_id in entries:
            if position in box.entries and box.entries[position].message_id == message_id:
                box.remove(position)
        return before - len(box.entries)

    async def depth(self, owner: Username) -> tuple[int, int]:
        """Return the entries and the sealed bytes that the mailbox holds."""
        ledger = self._box(owner).ledger
        return ledger.entries, ledger.bytes

    async def totals(self) -> tuple[int, int]:
        """Return the entries and the sealed bytes that all mailboxes hold."""
        ledgers = [box.ledger for box in self._boxes.values()]
        return sum(ledger.entries for ledger in ledgers), sum(ledger.bytes for ledger in ledgers)

    async def expire(self, now_ms: int, *, limit: int) -> int:
        """Delete up to *limit* entries that expired before *now_ms*, in any mailbox; return how many."""
        over = [
            (box, position)
            for box in self._boxes.values()
            for position, entry in box.entries.items()
            if expired(entry.expires_at, now_ms)
        ][:limit]
        for box, position in over:
            box.remove(position)
        return len(over)

    def _box(self, owner: Username) -> _Mailbox:
        return self._boxes.get(owner) or _Mailbox()


class MemoryDirectory:
    """`ports.Directory` in memory; drops stale stocks of *pairs* when a bundle is replaced."""

    def __init__(self, pairs: "MemoryPairs") -> None:
        self._pairs = pairs
        self._accounts: dict[Username, Registered] = {}

    async def register(self, account: Registered) -> Registered:
        """Claim a username and return what stands there now: *account*, or whoever was first."""
        return self._accounts.setdefault(account.username, account)

    async def find(self, username: Username) -> Registered | None:
        """Return the account of this name, if there is one."""
        return self._accounts.get(username)

    async def publish(self, username: Username, *, bundle: bytes, vault_id: VaultId, epoch: int) -> None:
        """Replace the account's bundle and drop the stock of any other vault. Raises RecipientUnknown."""
        if username not in self._accounts:
            raise RecipientUnknown(f"nobody is registered as {username}")
        account = self._accounts[username]
        self._accounts[username] = replace(account, bundle=bundle, vault_id=vault_id, epoch=epoch)
        self._pairs.keep_only(username, vault_id)

    async def names(self, *, after: str, limit: int) -> list[Username]:
        """Return up to *limit* usernames above *after*, in order."""
        return sorted(name for name in self._accounts if name > after)[:limit]


class MemoryInvites:
    """`ports.Invites` in memory; registers in *directory*."""

    def __init__(self, directory: MemoryDirectory) -> None:
        self._directory = directory
        self._kept: dict[bytes, Invite] = {}

    async def add(self, invite: Invite, *, now_ms: int) -> Refusal | None:
        """Keep a new invitation; those that are over make room if there are too many."""
        if len(self._kept) >= KEPT:
            self._kept = {digest: old for digest, old in self._kept.items() if not is_over(old, now_ms)}
            if len(self._kept) >= KEPT:
                return TOO_MANY
        self._kept[invite.digest] = invite
        return None

    async def register(self, account: Registered, digest: bytes, *, now_ms: int) -> Registered | Refusal:
        """Claim a username by invitation and return what stands there now."""
        there = await self._directory.find(account.username)
        if there is not None and there.signing_key == account.signing_key:
            return there
        invite = usable(self._kept.get(digest), now_ms)
        if isinstance(invite, Refusal):
            return invite
        if there is None:
            self._kept[digest] = replace(invite, used=invite.used + 1)
        return await self._directory.register(account)

    async def revoke(self, digest: bytes) -> bool:
        """Delete an invitation; return whether it was there."""
        return self._kept.pop(digest, None) is not None

    async def all(self) -> list[Invite]:
        """Return every invitation that is kept, in the order of the digests."""
        return [self._kept[digest] for digest in sorted(self._kept)]


class MemoryPairs:
    """`ports.Pairs` in memory: a queue by owner and vault."""

    def __init__(self) -> None:
        self._stocks: dict[Username, dict[VaultId, dict[bytes, None]]] = {}

    async def stock(self, owner: Username, vault_id: VaultId, pairs: Sequence[bytes]) -> int:
        """Add encoded pairs of this vault and return the stock's size."""
        self._stocks.setdefault(owner, {}).setdefault(vault_id, {}).update(dict.fromkeys(pairs))
        return await self.count(owner)

    async def claim(self, owner: Username, vault_id: VaultId) -> bytes | None:
        """Take the oldest pair of this vault out of the stock, for good; None if there is none."""
        stock = self._stocks.get(owner, {}).get(vault_id)
        if not stock:
            return None
        pair = next(iter(stock))
        del stock[pair]
        return pair

    async def count(self, owner: Username) -> int:
        """Return the stock's size."""
        return sum(map(len, self._stocks.get(owner, {}).values()))

    def stocks(self, owner: Username) -> dict[VaultId, list[bytes]]:
        """Return the pairs in stock, by vault."""
        return {vault: list(stock) for vault, stock in self._stocks.get(owner, {}).items() if stock}

    def keep_only(self, owner: Username, vault_id: VaultId) -> None:
        """Drop the stock of every vault of *owner* but this one."""
        stocks = self._stocks.get(owner, {})
        self._stocks[owner] = {vault: stock for vault, stock in stocks.items() if vault == vault_id}


class MemorySubscriptions:
    """`ports.Subscriptions` in memory."""

    def __init__(self) -> None:
        self._newest: dict[Username, Subscription] = {}
        self._generations: dict[tuple[Username, VaultId], int] = {}

    async def activate(self, owner: Username, vault_id: VaultId, generation: int) -> Subscription | Refusal:
        """Make a new subscription with the next number, or refuse with `generation_stale`."""
        if generation <= self._generations.get((owner, vault_id), -1):
            return Refusal("generation_stale", "this vault has subscribed with this generation before")
        self._generations[owner, vault_id] = generation
        newest = self._newest.get(owner)
        self._newest[owner] = Subscription(newest.number + 1 if newest else 1, vault_id, generation)
        return self._newest[owner]

    async def current(self, owner: Username) -> Subscription | None:
        """Return the newest subscription."""
        return self._newest.get(owner)

    def generations(self, owner: Username) -> dict[VaultId, int]:
        """Return the highest generation that each vault subscribed with."""
        return {vault: highest for (name, vault), highest in self._generations.items() if name == owner}


class MemoryStates:
    """`ports.States` in memory."""

    def __init__(self) -> None:
        self._kept: dict[Username, tuple[int, bytes]] = {}

    async def put(self, owner: Username, version: int, blob: bytes) -> bool:
        """Keep *blob* if *version* is higher than the kept one; return whether it was."""
        if version <= self._kept.get(owner, (0, b""))[0]:
            return False
        self._kept[owner] = version, blob
        return True

    async def get(self, owner: Username) -> tuple[int, bytes]:
        """Return the kept version and blob; (0, b"") if there is none."""
        return self._kept.get(owner, (0, b""))


class MemoryStandings:
    """`ports.Standings` in memory."""

    def __init__(self) -> None:
        self._decided: dict[Username, Standing] = {}

    async def set(self, username: Username, standing: Standing) -> None:
        """Decide."""
        self._decided.pop(username, None)
        if standing is not Standing.GOOD:
            self._decided[username] = standing

    async def of(self, username: Username) -> Standing:
        """Return what was decided about one account."""
        return self._decided.get(username, Standing.GOOD)

    async def all(self) -> dict[Username, Standing]:
        """Return every account that is not in good standing."""
        return dict(self._decided)


class MemoryContents:
    """`ports.Contents` in memory."""

    def __init__(self, pairs: MemoryPairs, subscriptions: MemorySubscriptions, relay_id: RelayId) -> None:
        self._pairs = pairs
        self._subscriptions = subscriptions
        self._successor = ""
        self.relay_id = relay_id

    async def stocks(self, owner: Username) -> dict[VaultId, list[bytes]]:
        """Return the encoded pairs in stock, by vault; nothing is claimed."""
        return self._pairs.stocks(owner)

    async def generations(self, owner: Username) -> dict[VaultId, int]:
        """Return the highest generation that each vault subscribed with."""
        return self._subscriptions.generations(owner)

    async def adopt(self, relay_id: RelayId) -> None:
        """Take over another store's relay id."""
        self.relay_id = relay_id

    async def retire(self, successor: str) -> None:
        """Keep every relay from running on this store from now on."""
        self._successor = successor

    async def successor(self) -> str:
        """Return the address of the store that has taken over, "" if none has."""
        return self._successor


class MemoryStore:
    """All ports in memory; always writable, and nothing to close."""

    def __init__(self, quotas: Quotas, relay_id: RelayId, clock: Clock) -> None:
        self.mailboxes: Mailboxes = MemoryMailboxes(quotas)
        pairs, subscriptions = MemoryPairs(), MemorySubscriptions()
        directory = MemoryDirectory(pairs)
        self.pairs: Pairs = pairs
        self.directory: Directory = directory
        self.invites: Invites = MemoryInvites(directory)
        self.subscriptions: Subscriptions = subscriptions
        self._contents = MemoryContents(pairs, subscriptions, relay_id)
        self.contents: Contents = self._contents
        self.states: States = MemoryStates()
        self.standings: Standings = MemoryStandings()
        self.presence: Presence = LocalPresence()
        self.budgets: Budgets = LocalBudgets(clock)

    @property
    def relay_id(self) -> RelayId:
        """The random id made with the store, or the one that it has adopted."""
        return self._contents.relay_id

    async def check_writable(self) -> Refusal | None:
        """Return None: memory always takes writes."""
        return None

    def observe_commits(self, tell: Callable[[float], None]) -> None:
        """Do nothing: there are no commits."""

    def observe_changes(self, mail: Changed, subscriptions: Changed) -> None:
        """Do nothing: there is no other relay."""

    def snapshot(self) -> AbstractAsyncContextManager[Path]:
        """Raise Unsupported: there are no files."""
        raise Unsupported("a relay with --store memory keeps nothing on disk", hint="run it with --store rocksdb")

    async def close(self) -> None:
        """Nothing to release."""


def open_memory_store(*, quotas: Quotas | None = None, entropy: Entropy = system_entropy, clock: Clock) -> MemoryStore:
    """Return a new, empty store; *quotas* default to `Quotas()`."""
    return MemoryStore(quotas or Quotas(), RelayId(entropy(16)), clock)
