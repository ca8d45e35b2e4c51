"""What the relay needs of a store, as small Protocols with their guarantees. `memory` is the reference.

Several relays may share one store, so nothing here assumes that the caller saw every change. Every method that
returns after a change returns when the change is on disk (for stores that have one). Nothing here can read a
message: what is kept is sealed.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from aimessage.types import MessageId, Position, RelayId, Username, VaultId

__all__ = [
    "Budgets", "Changed", "Contents", "Directory", "Findings", "Invite", "Invites", "Mailboxes", "Page", "Pairs",
    "Posting", "Presence", "Quotas", "Receipt", "Refusal", "Registered", "Standing", "Standings", "States", "Store",
    "Stored", "Subscription", "Subscriptions",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quotas:
    """Bounds on one mailbox; 0 switches a bound off. *messages_of_one*, *bytes_of_one*: a sender's share of them."""

    messages: int = 10_000
    bytes: int = 64 << 20
    sender_share: float = 0.25
    controls: int = 2_000
    message_ttl_ms: int = 30 * 86_400_000
    control_ttl_ms: int = 7 * 86_400_000
    messages_of_one: int = field(init=False)
    bytes_of_one: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages_of_one", _part(self.messages, self.sender_share))
        object.__setattr__(self, "bytes_of_one", _part(self.bytes, self.sender_share))


def _part(bound: int, share: float) -> int:
    return max(1, int(bound * share)) if bound and share else 0


class Posting(msgspec.Struct, frozen=True, gc=False):
    """One sealed message on its way in; times in milliseconds since 1970, *expires_at* 0 for the store's own bound."""

    owner: Username
    sender: Username
    message_id: MessageId
    attempt: int
    mail_class: int
    accepted_at: int
    expires_at: int
    sealed: bytes


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The posting is on disk. *duplicate*: (sender, id, attempt) already was, and this repeats its acceptance."""

    position: Position
    accepted_at: int
    expires_at: int
    duplicate: bool


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The item was not taken; *code* is one of `errors`, *retry_after* in seconds."""

    code: str
    message: str
    retry_after: float = 0.0


class Stored(msgspec.Struct, frozen=True, gc=False):
    """One entry of a mailbox."""

    position: Position
    sender: Username
    message_id: MessageId
    attempt: int
    mail_class: int
    accepted_at: int
    expires_at: int
    sealed: bytes


class Page(NamedTuple):
    """Some entries of a mailbox, in order. The next page is behind *after*; *is_last*: for now there is none."""

    entries: Sequence[Stored]
    after: Position
    is_last: bool


class Mailboxes(Protocol):
    """One durable queue per recipient; positions are opaque, ordered, not contiguous.

    The same (sender, id, attempt) in one mailbox is stored once while it is undeleted. A full mailbox refuses and
    evicts nothing, except control mail, whose oldest makes room. An expired entry is never yielded.
    """

    async def append(self, batch: Sequence[Posting]) -> list[Receipt | Refusal]:
        """Store each posting or refuse it, in order, in one commit; on disk when it returns.

        Behind a message that did not fit, the rest of the batch from its sender to that mailbox is refused too,
        control mail excepted: so that a later message never overtakes one that is sent again.
        """
        ...

    async def page(self, owner: Username, *, after: Position, now_ms: int, limit: int) -> Page:
        """Return the first undeleted, unexpired entries with a position above *after*, at most *limit*.

        A page may be short, or empty, and not the last.
        """
        ...

    async def ack(self, owner: Username, entries: Sequence[tuple[Position, MessageId]]) -> int:
        """Delete the entries whose position and id both match; return how many. Idempotent.

        A power cut right after it may bring them back.
        """
        ...

    async def depth(self, owner: Username) -> tuple[int, int]:
        """Return the entries and the sealed bytes that the mailbox holds."""
        ...

    async def totals(self) -> tuple[int, int]:
        """Return the entries and the sealed bytes that all mailboxes hold, about as they were a moment ago."""
        ...

    async def expire(self, now_ms: int, *, limit: int) -> int:
        """Delete up to *limit* entries that expired before *now_ms*, in any mailbox; return how many."""
        ...


class Registered(msgspec.Struct, frozen=True):
    """One account: *bundle* is encoded as it travels and names the active vault."""

    username: Username
    signing_key: bytes
    bundle: bytes
    vault_id: VaultId
    epoch: int
    registered_at: int


class Directory(Protocol):
    """Usernames, each owned by the first identity key that claimed it, for ever."""

    async def register(self, account: Registered) -> Registered:
        """Claim a username and return what stands there now: *account*, or whoever was first. Atomic."""
        ...

    async def find(self, username: Username) -> Registered | None:
        """Return the account of this name, if there is one."""
        ...

    async def publish(self, username: Username, *, bundle: bytes, vault_id: VaultId, epoch: int) -> None:
        """Replace the account's bundle; the stock of pairs of any other vault is dropped with it."""
        ...

    async def names(self, *, after: str, limit: int) -> list[Username]:
        """Return up to *limit* usernames above *after*, in order."""
        ...


class Invite(msgspec.Struct, frozen=True):
    """One invitation, known by the SHA-256 of its code; times in milliseconds since 1970, *expires_at* 0 for never.

    *uses*: how many registrations it was made for; *used*: how many there were.
    """

    digest: bytes
    label: str
    made_at: int
    expires_at: int
    uses: int
    used: int = 0


class Invites(Protocol):
    """The operator's invitations to register. None is good for more registrations than it was made for.

    `stores.invitations` says when one is over, what is answered then, and how many are kept.
    """

    async def add(self, invite: Invite, *, now_ms: int) -> Refusal | None:
        """Keep a new invitation. Refused with `over_limit` if `KEPT` are kept and none of them is over; if some are,
        all those are deleted first."""
        ...

    async def register(self, account: Registered, digest: bytes, *, now_ms: int) -> Registered | Refusal:
        """Claim a username by invitation and return what stands there now: *account*, or whoever was first.

        What stands there under the same signing key is returned whatever the invitation is. Else an invitation that is
        unknown or over is refused with `invite_refused`, the name being free or not. A use is counted if and only if
        the name was claimed by this call; a store that cannot change both at once may lose a use when it is cut off
        between, and never gives one too many.
        """
        ...

    async def revoke(self, digest: bytes) -> bool:
        """Delete an invitation, also while the disk is nearly full; return whether it was there."""
        ...

    async def all(self) -> list[Invite]:
        """Return every invitation that is kept, those that are over included, in the order of the digests."""
        ...


class Pairs(Protocol):
    """Stocks of one-time pairs. A pair is served once, however many relays ask at once."""

    async def stock(self, owner: Username, vault_id: VaultId, pairs: Sequence[bytes]) -> int:
        """Add encoded pairs of this vault and return the stock's size. A pair that was ever stocked is not re-added
        while it is in stock."""
        ...

    async def claim(self, owner: Username, vault_id: VaultId) -> bytes | None:
        """Take one pair of this vault out of the stock, for good; None if there is none."""
        ...

    async def count(self, owner: Username) -> int:
        """Return the stock's size."""
        ...


@dataclass(frozen=True, slots=True)
class Subscription:
    """The newest subscription of a mailbox."""

    number: int
    vault_id: VaultId
    generation: int


class Subscriptions(Protocol):
    """Who receives: one subscription per mailbox, the newest, by compare-and-set."""

    async def activate(self, owner: Username, vault_id: VaultId, generation: int) -> Subscription | Refusal:
        """Make a new subscription with the next number.

        Refused with `generation_stale` if this vault already subscribed with this generation or a higher one: the
        sign of a clone or of a restored copy.
        """
        ...

    async def current(self, owner: Username) -> Subscription | None:
        """Return the newest subscription."""
        ...


class States(Protocol):
    """One sealed client state per account."""

    async def put(self, owner: Username, version: int, blob: bytes) -> bool:
        """Keep *blob* if *version* is higher than the kept one; return whether it was."""
        ...

    async def get(self, owner: Username) -> tuple[int, bytes]:
        """Return the kept version and blob; (0, b"") if there is none."""
        ...


class Standing(Enum):
    """What the operator has decided about an account."""

    GOOD = "good"
    BANNED = "banned"  # may not log in; keeps its name and its mail
    REMOVED = "removed"  # for good: only the name and its key are kept, so that nobody else gets it


class Standings(Protocol):
    """The operator's decisions about accounts."""

    async def set(self, username: Username, standing: Standing) -> None:
        """Decide; also while the disk is nearly full."""
        ...

    async def of(self, username: Username) -> Standing:
        """Return what was decided about one account."""
        ...

    async def all(self) -> dict[Username, Standing]:
        """Return every account that is not in good standing."""
        ...


class Presence(Protocol):
    """Who receives on a link, at any relay; a hint, not durable."""

    async def arrive(self, owner: Username) -> None:
        """One more link of *owner* receives here."""
        ...

    async def leave(self, owner: Username) -> None:
        """One link fewer."""
        ...

    async def online(self) -> frozenset[Username]:
        """Return everybody who receives."""
        ...

    async def relays(self) -> int:
        """Return how many relays run on this store, this one included."""
        ...


class Budgets(Protocol):
    """Limits that all relays on a store share: at most *limit* events of a key in any *seconds*; 0 for no limit."""

    async def take(self, key: str, *, limit: int, seconds: float) -> float:
        """Count one event; return 0.0 if it is within the limit, else the seconds until one would be."""
        ...

    async def wait(self, key: str, *, limit: int, seconds: float) -> float:
        """Return what `take` would; count nothing."""
        ...


class Contents(Protocol):
    """What no other port shows of an account, for an operator who moves a whole store elsewhere."""

    async def stocks(self, owner: Username) -> dict[VaultId, list[bytes]]:
        """Return the encoded pairs in stock, by vault; nothing is claimed."""
        ...

    async def generations(self, owner: Username) -> dict[VaultId, int]:
        """Return the highest generation that each vault subscribed with."""
        ...

    async def adopt(self, relay_id: RelayId) -> None:
        """Take over another store's relay id; the caller sees to it that nobody knows this store by its own."""
        ...

    async def retire(self, successor: str) -> None:
        """Keep every relay from running on this store from now on: *successor*, an address, has taken over."""
        ...

    async def successor(self) -> str:
        """Return the address of the store that has taken over, "" if none has."""
        ...


@dataclass(frozen=True, slots=True)
class Findings:
    """What reading a whole store has found: how much it holds, whose mail or account is damaged, and every sentence."""

    mailboxes: int
    messages: int
    accounts: int
    damaged: tuple[Username, ...] = ()
    damages: tuple[str, ...] = ()


Changed = Callable[[Collection[Username]], None]
"""Takes the names of those for whom something is new."""


class Store(Protocol):
    """All ports of one store, and its life."""

    mailboxes: Mailboxes
    directory: Directory
    invites: Invites
    pairs: Pairs
    subscriptions: Subscriptions
    states: States
    standings: Standings
    presence: Presence
    budgets: Budgets
    contents: Contents

    @property
    def relay_id(self) -> RelayId:
        """The random id made with the store, or the one that it has adopted."""
        ...

    async def check_writable(self) -> Refusal | None:
        """Return why the store cannot take writes now, or None. Raises StoreDamaged: it will not again."""
        ...

    def observe_commits(self, tell: Callable[[float], None]) -> None:
        """From now on *tell*, from any thread, how many seconds each commit took, sync included."""
        ...

    def observe_changes(self, mail: Changed, subscriptions: Changed) -> None:
        """From now on tell whose mailbox, and whose subscription, another relay may have changed.

        Of whoever is present here; a hint, which may come too often, late, and at the latest after 30 seconds.
        """
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Path]:
        """A directory, while the context is open, with everything in it that was acknowledged before.

        Raises Unsupported: this store has no files. Raises RelayUnavailable: not now.
        """
        ...

    async def close(self) -> None:
        """Finish what is under way, release everything. Nothing may be called after it."""
        ...
