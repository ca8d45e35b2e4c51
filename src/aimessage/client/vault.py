"""The agent's local store: SQLite in WAL mode, every secret value sealed, every change one transaction.

Many processes of one agent share it: a write transaction is `BEGIN IMMEDIATE`, and nothing is remembered across two.
Schema: docs/spec/storage.md.
"""

import os
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

from aimessage.client.schema import SCHEMA_STEPS, SCHEMA_VERSION
from aimessage.client.transaction import Peer, Transaction
from aimessage.crypto.aead import StorageKey
from aimessage.crypto.random import Entropy, system_entropy
from aimessage.errors import AimessageError, VaultDamaged, VaultNewer, VaultUnavailable
from aimessage.types import SecretBytes

__all__ = ["SCHEMA_VERSION", "Peer", "Transaction", "Vault"]

if (bytes, sqlite3.PrepareProtocol) not in sqlite3.adapters:
    # What `sqlite3` passes on as it is, it knows without a look for int, str, float and bytearray only: for bytes it
    # raises and drops two errors a value, 0.7 µs. An adapter that returns the same object changes nothing else.
    sqlite3.register_adapter(bytes, bytes)


def _named(error: sqlite3.DatabaseError) -> AimessageError:
    """Tell what can pass (a full disk, a lock held too long) from what cannot (damage)."""
    if isinstance(error, sqlite3.OperationalError):
        return VaultUnavailable(f"the vault cannot be used now: {error}")
    return VaultDamaged(f"the vault is damaged: {error}", hint="restore under a new --agent")


class Vault:
    """One agent's vault; one object a process."""

    def __init__(self, path: Path, key: SecretBytes, entropy: Entropy = system_entropy) -> None:
        self._storage = StorageKey(key)
        self._entropy = entropy
        self._is_lasting = True
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            path.chmod(0o600)
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=30)
        except sqlite3.OperationalError as error:
            raise VaultUnavailable(f"the vault cannot be opened: {error}") from None
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA secure_delete=ON")  # what is erased is gone, whatever SQLite's build
            self._require_schema()
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise _named(error) from None
        except BaseException:
            self._database.close()  # which also undoes a schema that is half made
            raise

    def close(self) -> None:
        """Release the files."""
        self._database.close()

    def transaction(self, *, lasting: bool = True) -> AbstractContextManager[Transaction]:
        """One write transaction: all of it is on disk afterwards, or nothing.

        One that is not *lasting* is seen by every process at once and survives the end of each, but a power cut may
        undo it, until the next lasting one of any process: for what can be found out or done again.

        Raises VaultUnavailable: it cannot be written now; VaultDamaged.
        """
        return _Writing(self, lasting=lasting)

    def reading(self) -> AbstractContextManager[Transaction]:
        """One consistent view, beside whoever writes; nothing may be changed in it. Raises as `transaction`."""
        return _Reading(self)

    def begin(self, statement: str, *, lasting: bool | None = None) -> Transaction:
        """Begin what `end` ends; *lasting* None leaves the way of writing as it is. Raises as `transaction`."""
        try:
            if lasting is not None and lasting is not self._is_lasting:
                self._database.execute(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
                self._is_lasting = lasting
            self._database.execute(statement)
        except sqlite3.DatabaseError as error:
            raise _named(error) from None
        return Transaction(self._database, self._storage, self._entropy)

    def end(self, statement: str, error: BaseException | None) -> None:
        """End it by *statement*, or undo it for *error*. Raises what `transaction` does, in the place of SQLite's."""
        try:
            try:
                if error is None:
                    self._database.execute(statement)
                elif isinstance(error, sqlite3.DatabaseError):
                    raise error
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
        except sqlite3.DatabaseError as failure:
            raise _named(failure) from None

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


class _Writing:
    """The context of a write transaction: a class, because a generator costs as much as a statement."""

    __slots__ = ("_lasting", "_vault")

    def __init__(self, vault: Vault, *, lasting: bool) -> None:
        self._vault = vault
        self._lasting = lasting

    def __enter__(self) -> Transaction:
        return self._vault.begin("BEGIN IMMEDIATE", lasting=self._lasting)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._vault.end("COMMIT", error)


class _Reading:
    """The context of a view."""

    __slots__ = ("_vault",)

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def __enter__(self) -> Transaction:
        return self._vault.begin("BEGIN")

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._vault.end("ROLLBACK", error)
