"""The agent's local store: SQLite in WAL mode, every secret value sealed, every change one transaction.

Many processes of one agent share it: a write transaction is `BEGIN IMMEDIATE`, and nothing is remembered across two.
Schema: docs/spec/storage.md.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aimessage.client.schema import SCHEMA_STEPS, SCHEMA_VERSION
from aimessage.client.transaction import Peer, Transaction
from aimessage.crypto.aead import StorageKey
from aimessage.crypto.random import Entropy, system_entropy
from aimessage.errors import VaultDamaged, VaultNewer, VaultUnavailable
from aimessage.types import SecretBytes

__all__ = ["SCHEMA_VERSION", "Peer", "Transaction", "Vault"]

if (bytes, sqlite3.PrepareProtocol) not in sqlite3.adapters:
    # What `sqlite3` passes on as it is, it knows without a look for int, str, float and bytearray only: for bytes it
    # raises and drops two errors a value, 0.7 µs. An adapter that returns the same object changes nothing else.
    sqlite3.register_adapter(bytes, bytes)


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
                self._database.execute("PRAGMA secure_delete=ON")  # what is erased is gone, whatever SQLite's build
                self._require_schema()
        except BaseException:
            self._database.close()  # which also undoes a schema that is half made
            raise

    def close(self) -> None:
        """Release the files."""
        self._database.close()

    @contextmanager
    def transaction(self, *, lasting: bool = True) -> Iterator["Transaction"]:
        """One write transaction: all of it is on disk afterwards, or nothing.

        One that is not *lasting* is seen by every process at once and survives the end of each, but a power cut may
        undo it, until the next lasting one of any process: for what can be found out or done again.

        Raises VaultUnavailable: it cannot be written now; VaultDamaged.
        """
        with _named_failures():
            if not lasting:
                self._database.execute("PRAGMA synchronous=NORMAL")
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield Transaction(self._database, self._storage, self._entropy)
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            finally:
                if not lasting:
                    self._database.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def reading(self) -> Iterator["Transaction"]:
        """One consistent view, beside whoever writes; nothing may be changed in it. Raises as `transaction`."""
        with _named_failures():
            self._database.execute("BEGIN")
            try:
                yield Transaction(self._database, self._storage, self._entropy)
            finally:
                self._database.execute("ROLLBACK")

    def version(self) -> int:
        """Return a number that changes with every commit of another process, or of another object, on this vault."""
        (number,) = self._database.execute("PRAGMA data_version").fetchone()
        return int(number)

    def _require_schema(self) -> None:
        if self._step() == SCHEMA_VERSION:
            return
        self._database.execute("BEGIN IMMEDIATE")
        for script in SCHEMA_STEPS[self._step() :]:  # read again: another process may have been first
            for statement in script.split(";"):
                if statement.strip():
                    self._database.execute(statement)
        self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._database.execute("COMMIT")

    def _step(self) -> int:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise VaultNewer("this agent's vault was written by a newer version")
        return int(version)
