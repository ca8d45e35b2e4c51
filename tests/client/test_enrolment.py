"""No failure on the way to an identity may cost one."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from aimessage.client import Settings, connect, register, restore
from aimessage.client.account import open_here
from aimessage.client.profile import load_profile, load_token, write_private
from aimessage.errors import HostRefused, VaultDamaged, VaultUnavailable
from aimessage.types import SecretBytes
from support.relay import running_relay


def settings(tmp_path: Path, url: str) -> Settings:
    return Settings(home=tmp_path / "home", agent="one", server=url)


async def test_a_lost_answer_and_another_name_keep_the_first_names_token(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        one = settings(tmp_path, url)
        await register(one, "alice")
        first = load_token(one.directory / "token", None).secret.reveal
        (one.directory / "profile.json").unlink()
        await register(one, "bobby")
        kept = load_token(one.directory / "token.unfinished-1", None)
        assert kept.secret.reveal == first
        again = Settings(tmp_path / "elsewhere", "one", url, token=SecretBytes(kept.text().encode()))
        assert (await restore(again, "alice")).username == "alice"


async def test_a_refusal_that_may_pass_keeps_the_pending_token(tmp_path: Path) -> None:
    one = settings(tmp_path, "")
    async with running_relay(tmp_path, public_host="elsewhere.example", host="0.0.0.0") as url:
        with pytest.raises(HostRefused):
            await register(settings(tmp_path, url), "alice")
    assert len(load_token(one.directory / "token", None).secret.reveal) == 32


async def test_a_lost_pending_note_costs_no_token(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        one = settings(tmp_path, url)
        await register(one, "alice")
        first = load_token(one.directory / "token", None).secret.reveal
        for name in ("profile.json", "pending"):
            (one.directory / name).unlink()
        await register(one, "alice-two")
        assert load_token(one.directory / "token.unfinished-1", None).secret.reveal == first


@pytest.mark.parametrize(
    "change", [{"username": "root"}, {"username": 5}, {"server": 5}, {"server": "x"}, {"format": "1"}]
)
async def test_a_damaged_profile_is_named_and_its_hint_works(tmp_path: Path, change: dict[str, object]) -> None:
    async with running_relay(tmp_path) as url:
        one = settings(tmp_path, url)
        await register(one, "alice")
        async with connect(one) as me:
            before = me.fingerprint
        path = one.directory / "profile.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(VaultDamaged):
            load_profile(Settings(one.home, one.agent))
        path.rename(path.with_suffix(".bad"))
        await register(one, "alice")
        async with connect(one) as me:
            assert me.fingerprint == before


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    write_private(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["token"]
    assert path.read_bytes() == b"old"


async def test_a_vault_that_is_in_the_way_and_one_that_is_damaged_are_told_apart(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        one = settings(tmp_path, url)
        await register(one, "alice")
    profile = load_profile(one)
    here = open_here(profile, None)
    here.vault._database.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(profile.vault_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(VaultUnavailable), here.vault.transaction():
        pass
    other.close()
    here.vault.close()
    for name in ("vault.db-wal", "vault.db-shm"):
        (one.directory / name).unlink(missing_ok=True)
    profile.vault_path.write_bytes(b"this is not a database" * 99)
    with pytest.raises(VaultDamaged):
        open_here(profile, None)


async def test_what_fails_halfway_through_a_transaction_leaves_nothing(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        one = settings(tmp_path, url)
        await register(one, "alice")
    here = open_here(load_profile(one), None)
    with pytest.raises(ZeroDivisionError), here.vault.transaction() as vault:
        vault.save_meta("half", b"done")
        raise ZeroDivisionError
    with here.vault.transaction() as vault:
        assert vault.meta("half") is None
    here.vault.close()


async def test_a_vault_that_cannot_even_undo_says_so_in_our_words(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        one = settings(tmp_path, url)
        await register(one, "alice")
    here = open_here(load_profile(one), None)
    database = here.vault._database

    class Failing:
        in_transaction = True

        def execute(self, statement: str) -> None:
            raise sqlite3.OperationalError(f"disk I/O error at {statement}")

    with pytest.raises(VaultUnavailable, match="disk I/O error at ROLLBACK"), here.vault.transaction():
        here.vault._database = Failing()  # type: ignore[assignment]
        raise LookupError
    here.vault._database = database
    database.execute("ROLLBACK")
    with here.vault.transaction() as vault:
        assert vault.bump("generation") == vault.counter("generation")
    here.close()
