"""What is erased from a vault is not left behind in its file, whatever way SQLite was built."""

import sqlite3
from pathlib import Path

from aimessage.client.vault import Vault
from aimessage.types import SecretBytes


def test_what_was_erased_does_not_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    path.touch(mode=0o600)
    vault = Vault(path, SecretBytes(bytes(32)))
    marks = [f"row-{number}-to-be-erased".encode() * 20 for number in range(200)]
    with vault.transaction() as changed:
        for mark in marks:
            changed.run("INSERT INTO pairs VALUES (?, ?)", (mark[:12], mark))
    with vault.transaction() as changed:
        for mark in marks:
            changed.erase_pair(mark[:12])
    vault.close()  # the last one to leave copies the log into the file and removes it

    assert not path.with_name("vault.db-wal").exists()
    octets = path.read_bytes()
    assert [mark for mark in marks if mark[:40] in octets] == []


def test_bytes_reach_the_vault_as_they_are() -> None:
    database = sqlite3.connect(":memory:")
    assert database.execute("SELECT ?, typeof(?)", (b"\x00\xff", b"\x00\xff")).fetchone() == (b"\x00\xff", "blob")
    assert (bytes, sqlite3.PrepareProtocol) in sqlite3.adapters
