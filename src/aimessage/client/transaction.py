"""What one write transaction of the vault can read and change; values are sealed on the way in."""

import sqlite3
from collections.abc import Iterable, Sequence

from aimessage.crypto.aead import StorageKey
from aimessage.crypto.random import Entropy
from aimessage.e2ee.prekeys import BundleSecrets, PairSecrets
from aimessage.e2ee.session import Conversation
from aimessage.errors import DecryptionFailed, VaultDamaged
from aimessage.types import Address, MessageId, Username, VaultId

__all__ = ["Peer", "Transaction"]

_PEER_COLUMNS = "pin, trust, contact, epoch, sent_sequence, conversation, reset_at, presented, met_at, turned_away"
_DRAWN_BYTES = 512  # a dozen messages: most transactions seal no more


class Peer:
    """One peer's row, opened; write it back with `Transaction.save_peer`.

    *reset_at* is when we last began a fresh session of our own accord, *met_at* when the key was pinned, both in
    milliseconds since 1970. *presented* is another key than the pinned one that came under this name. *turned_away*
    counts messages that we did not keep while nobody had accepted this peer.
    """

    __slots__ = (
        *("contact", "conversation", "epoch", "kept", "met_at", "pin", "presented", "reset_at", "sent_sequence"),
        *("name", "trust", "turned_away"),
    )

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.name: Username = conversation.peer.username
        self.pin: bytes | None = None
        self.trust = "first-use"
        self.contact = "none"
        self.epoch = 0
        self.sent_sequence = 0
        self.reset_at = 0
        self.presented: bytes | None = None
        self.met_at = 0
        self.turned_away = 0
        self.kept: object = None

    @property
    def is_contact(self) -> bool:
        """Whether we have said, by a word or by writing to it, that this peer may write to us."""
        return self.contact in ("accepted", "requested")

    @property
    def lasting(self) -> object:
        """What a restored agent must know of this peer: it travels in the state that the relay keeps."""
        return self.pin, self.trust, self.contact


class Transaction:
    """The vault, inside one write transaction. It is also the core's `PrekeySecrets` port."""

    def __init__(self, database: sqlite3.Connection, storage: StorageKey, entropy: Entropy) -> None:
        self.run = database.execute
        self.run_many = database.executemany
        self._storage = storage
        self._entropy = entropy
        self._drawn = b""

    def draw(self, count: int) -> bytes:
        """Return *count* random bytes, each of them once: drawn for many seals of one transaction together."""
        if len(self._drawn) < count:
            self._drawn = self._entropy(max(count, _DRAWN_BYTES))
        drawn, self._drawn = self._drawn[:count], self._drawn[count:]
        return drawn

    def seal(self, place: str, key: bytes, value: bytes) -> bytes:
        """Return *value* sealed for its *place*: table and column, and the row's *key*."""
        return self._storage.seal(value, place.encode() + b"\0" + key, self.draw)

    def unseal(self, place: str, key: bytes, sealed: bytes) -> bytes:
        """Return what `seal` sealed. Raises VaultDamaged: another token's, another place's, or damaged."""
        try:
            return self._storage.open(sealed, place.encode() + b"\0" + key)
        except DecryptionFailed:
            raise VaultDamaged(
                f"the vault's {place} does not open with this token", hint="check the token, or register a new --agent"
            ) from None

    def meta(self, name: str) -> bytes | None:
        """Return a named value."""
        row = self.run("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return self.unseal("meta", name.encode(), row[0]) if row else None

    def save_meta(self, name: str, value: bytes) -> None:
        """Keep a named value."""
        self.run("REPLACE INTO meta VALUES (?, ?)", (name, self.seal("meta", name.encode(), value)))

    def vault_id(self) -> VaultId:
        """Return this vault's id, made at the first call."""
        known = self.meta("vault_id")
        if known is None:
            known = self._entropy(16)
            self.save_meta("vault_id", known)
        return VaultId(known)

    def counter(self, name: str) -> int:
        """Return a named number, 0 at first."""
        return int.from_bytes(self.meta(name) or b"", "big", signed=True)

    def save_counter(self, name: str, value: int) -> None:
        """Keep a named number."""
        self.save_meta(name, value.to_bytes(8, "big", signed=True))

    def bump(self, name: str) -> int:
        """Add one to a named number and return it."""
        value = self.counter(name) + 1
        self.save_counter(name, value)
        return value

    def peer(self, address: Address) -> Peer:
        """Return what is known of a peer; an empty row if nothing is."""
        name = address.username
        found = Peer(Conversation.empty(address))
        row = self.run(f"SELECT {_PEER_COLUMNS} FROM peers WHERE name = ?", (name,)).fetchone()  # noqa: S608 - constants
        if row:
            found.pin = self.unseal("peers.pin", name.encode(), row[0]) if row[0] else None
            found.trust, found.contact, found.epoch, found.sent_sequence = row[1:5]
            if row[5]:
                found.conversation = Conversation.load(self.unseal("peers.conversation", name.encode(), row[5]))
            found.reset_at = row[6]
            found.presented = self.unseal("peers.presented", name.encode(), row[7]) if row[7] else None
            found.met_at, found.turned_away = row[8:10]
        found.kept = found.lasting
        return found

    def save_peer(self, peer: Peer) -> None:
        """Write a peer's row back."""
        name = peer.name
        pin = self.seal("peers.pin", name.encode(), peer.pin) if peer.pin else None
        conversation = self.seal("peers.conversation", name.encode(), peer.conversation.dump())
        presented = self.seal("peers.presented", name.encode(), peer.presented) if peer.presented else None
        self.run(
            f"REPLACE INTO peers (name, {_PEER_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
            (
                *(name, pin, peer.trust, peer.contact, peer.epoch, peer.sent_sequence, conversation),
                *(peer.reset_at, presented, peer.met_at, peer.turned_away),
            ),
        )
        if peer.kept != peer.lasting:
            self.bump("state_changes")
            peer.kept = peer.lasting

    def standing(self, name: str) -> tuple[bytes | None, str, str]:
        """Return a peer's pin, trust and contact, without opening its conversation."""
        row = self.run("SELECT pin, trust, contact FROM peers WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None, "first-use", "none"
        return self.unseal("peers.pin", name.encode(), row[0]) if row[0] else None, row[1], row[2]

    def contact_of(self, name: str) -> str:
        """Return whether a peer is a contact, as `Peer.contact` has it."""
        row = self.run("SELECT contact FROM peers WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else "none"

    def peer_names(self) -> list[Username]:
        """Return every peer that has a row, by name."""
        return [Username(name) for (name,) in self.run("SELECT name FROM peers ORDER BY name")]

    def bundle(self, reference: bytes) -> BundleSecrets | None:
        """Return a bundle's secrets, unless they were erased."""
        row = self.run("SELECT secrets FROM bundles WHERE reference = ?", (reference,)).fetchone()
        return BundleSecrets.load(self.unseal("bundles", reference, row[0])) if row else None

    def pair(self, reference: bytes) -> PairSecrets | None:
        """Return a one-time pair's secrets, unless they were used."""
        row = self.run("SELECT secrets FROM pairs WHERE reference = ?", (reference,)).fetchone()
        return PairSecrets.load(self.unseal("pairs", reference, row[0])) if row else None

    def save_bundle(self, secrets: BundleSecrets, made_at: int) -> None:
        """Keep a bundle's secrets; *made_at* in milliseconds since 1970."""
        sealed = self.seal("bundles", secrets.reference, secrets.dump())
        self.run("REPLACE INTO bundles VALUES (?, ?, ?)", (secrets.reference, made_at, sealed))

    def save_pair(self, secrets: PairSecrets) -> None:
        """Keep a one-time pair's secrets."""
        sealed = self.seal("pairs", secrets.reference, secrets.dump())
        self.run("REPLACE INTO pairs VALUES (?, ?)", (secrets.reference, sealed))

    def erase_pair(self, reference: bytes) -> None:
        """Forget a one-time pair that a session has used."""
        self.run("DELETE FROM pairs WHERE reference = ?", (reference,))

    def seen_among(self, sender: Username, ids: Sequence[MessageId]) -> set[MessageId]:
        """Return which of these messages of one sender have had their effect."""
        marks = ", ".join("?" * len(ids))
        rows = self.run(f"SELECT id FROM seen WHERE sender = ? AND id IN ({marks})", (sender, *ids))  # noqa: S608 - marks
        return {MessageId(message_id) for (message_id,) in rows}

    def mark_seen(self, keys: Iterable[tuple[Username, MessageId]], now_ms: int) -> None:
        """From now on these messages are duplicates."""
        rows = [(sender, message_id, now_ms) for sender, message_id in keys]
        self.run_many("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", rows)
