"""The agent's local store: SQLite in WAL mode, every secret value sealed, every change one transaction.

Many processes of one agent share it: a write transaction is `BEGIN IMMEDIATE`, and nothing is remembered across two.
Schema: docs/spec/storage.md.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aimessage.crypto.aead import StorageKey
from aimessage.crypto.random import Entropy, system_entropy
from aimessage.e2ee.prekeys import BundleSecrets, PairSecrets
from aimessage.e2ee.session import Conversation
from aimessage.errors import DecryptionFailed, VaultDamaged, VaultNewer, VaultUnavailable
from aimessage.types import Address, MessageId, SecretBytes, Username, VaultId

__all__ = ["SCHEMA_VERSION", "Peer", "Transaction", "Vault"]

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE peers (
    name TEXT PRIMARY KEY, pin BLOB, trust TEXT NOT NULL DEFAULT 'first-use', contact TEXT NOT NULL DEFAULT 'accepted',
    epoch INTEGER NOT NULL DEFAULT 0, sent_sequence INTEGER NOT NULL DEFAULT 0, conversation BLOB) WITHOUT ROWID;
CREATE TABLE bundles (reference BLOB PRIMARY KEY, made_at INTEGER NOT NULL, secrets BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE pairs (reference BLOB PRIMARY KEY, secrets BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, peer TEXT NOT NULL, attempt INTEGER NOT NULL,
    mail_class INTEGER NOT NULL, expires_at INTEGER NOT NULL, sealed BLOB NOT NULL, prefix TEXT);
CREATE TABLE sent (
    id BLOB PRIMARY KEY, peer TEXT NOT NULL, fate TEXT NOT NULL, code TEXT, changed_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, pin BLOB, idempotency BLOB UNIQUE,
    body BLOB) WITHOUT ROWID;
CREATE TABLE inbox (
    row INTEGER PRIMARY KEY AUTOINCREMENT, sender TEXT NOT NULL, id BLOB NOT NULL, attempt INTEGER NOT NULL,
    kind TEXT NOT NULL, state TEXT NOT NULL, received_at INTEGER NOT NULL, consumer TEXT, content BLOB NOT NULL);
CREATE INDEX inbox_state ON inbox (state, row);
CREATE TABLE seen (sender TEXT NOT NULL, id BLOB NOT NULL, PRIMARY KEY (sender, id)) WITHOUT ROWID;
CREATE TABLE awaits (id BLOB PRIMARY KEY, peer TEXT NOT NULL, answer INTEGER, until INTEGER NOT NULL) WITHOUT ROWID;
"""


@contextmanager
def _named_failures() -> Iterator[None]:
    """Tell what can pass (a full disk, a lock held too long) from what cannot (damage)."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise VaultUnavailable(f"the vault cannot be used now: {error}") from None
    except sqlite3.DatabaseError as error:
        raise VaultDamaged(f"the vault is damaged: {error}", hint="restore under a new --agent") from None


class Vault:
    """One agent's vault; one object a process."""

    def __init__(self, path: Path, key: SecretBytes, entropy: Entropy = system_entropy) -> None:
        self._storage = StorageKey(key)
        self._entropy = entropy
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            path.chmod(0o600)
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=30)
        except sqlite3.OperationalError as error:
            raise VaultUnavailable(f"the vault cannot be opened: {error}") from None
        try:
            with _named_failures():
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")
                self._require_schema()
        except BaseException:
            self._database.close()  # which also undoes a schema that is half made
            raise

    def close(self) -> None:
        """Release the files."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """One write transaction: all of it is on disk afterwards, or nothing.

        Raises VaultUnavailable: it cannot be written now; VaultDamaged.
        """
        with _named_failures():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._database, self._storage, self._entropy)
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _require_schema(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise VaultNewer("this agent's vault was written by a newer version")
        if version == SCHEMA_VERSION:
            return
        self._database.execute("BEGIN IMMEDIATE")
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version == 0:  # another process may have been first
            for statement in _SCHEMA.split(";"):
                if statement.strip():
                    self._database.execute(statement)
            self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._database.execute("COMMIT")


class Peer:
    """One peer's row, opened; write it back with `Transaction.save_peer`."""

    __slots__ = ("contact", "conversation", "epoch", "pin", "sent_sequence", "trust")

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.pin: bytes | None = None
        self.trust = "first-use"
        self.contact = "accepted"
        self.epoch = 0
        self.sent_sequence = 0


class Transaction:
    """The vault, inside one write transaction. It is also the core's `PrekeySecrets` port."""

    def __init__(self, database: sqlite3.Connection, storage: StorageKey, entropy: Entropy) -> None:
        self.run = database.execute
        self._storage = storage
        self._entropy = entropy

    def seal(self, place: str, key: bytes, value: bytes) -> bytes:
        """Return *value* sealed for its *place*: table and column, and the row's *key*."""
        return self._storage.seal(value, place.encode() + b"\0" + key, self._entropy)

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
        return int.from_bytes(self.meta(name) or b"", "big")

    def save_counter(self, name: str, value: int) -> None:
        """Keep a named number."""
        self.save_meta(name, value.to_bytes(8, "big"))

    def peer(self, address: Address) -> Peer:
        """Return what is known of a peer; an empty row if nothing is."""
        name = address.username
        found = Peer(Conversation.empty(address))
        row = self.run(
            "SELECT pin, trust, contact, epoch, sent_sequence, conversation FROM peers WHERE name = ?", (name,)
        ).fetchone()
        if row:
            found.pin = self.unseal("peers.pin", name.encode(), row[0]) if row[0] else None
            found.trust, found.contact, found.epoch, found.sent_sequence = row[1:5]
            if row[5]:
                found.conversation = Conversation.load(self.unseal("peers.conversation", name.encode(), row[5]))
        return found

    def save_peer(self, peer: Peer) -> None:
        """Write a peer's row back."""
        name = peer.conversation.peer.username
        pin = self.seal("peers.pin", name.encode(), peer.pin) if peer.pin else None
        conversation = self.seal("peers.conversation", name.encode(), peer.conversation.dump())
        self.run(
            "REPLACE INTO peers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, pin, peer.trust, peer.contact, peer.epoch, peer.sent_sequence, conversation),
        )

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

    def has_seen(self, sender: Username, message_id: MessageId) -> bool:
        """Return whether this message has had its effect."""
        return bool(self.run("SELECT 1 FROM seen WHERE sender = ? AND id = ?", (sender, message_id)).fetchone())

    def mark_seen(self, sender: Username, message_id: MessageId) -> None:
        """From now on this message is a duplicate."""
        self.run("INSERT OR IGNORE INTO seen VALUES (?, ?)", (sender, message_id))
