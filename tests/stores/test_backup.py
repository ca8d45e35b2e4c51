"""Snapshots, backups, reading a store through, and making a store from a backup."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from aimessage.errors import ConfigInvalid, RelayUnavailable, StoreDamaged, Unsupported
from aimessage.octets import u16, u64
from aimessage.stores.memory import open_memory_store
from aimessage.stores.ports import Findings, Quotas
from aimessage.stores.rocksdb import (
    RocksStore,
    copy_snapshot,
    keys,
    open_rocksdb_store,
    restore_backup,
    stopped_snapshot,
    tally,
    verify_directory,
)
from aimessage.stores.rocksdb.engine import Engine
from aimessage.types import Username
from support.stores import (
    ALICE,
    BOB,
    NOW,
    VAULT,
    ManualClock,
    accepted,
    account,
    contents,
    flip_where,
    name,
    names_in,
    number,
    post,
    tree,
)

FREE = Quotas(messages=0, bytes=0, sender_share=0)
CAROL = Username("carol")


async def opened(path: Path) -> RocksStore:
    return await open_rocksdb_store(path, quotas=FREE, clock=ManualClock())


async def filled(path: Path) -> RocksStore:
    """A store with mail of alice and bob, two accounts, pairs, a subscription and a state."""
    store = await opened(path)
    for owner in (ALICE, BOB):
        await store.directory.register(account(owner))
        await store.mailboxes.append([post(value, owner=owner, ttl=1000) for value in range(1, 11)])
    answers = await store.mailboxes.append([post(11), post(12, control=True)])
    await store.mailboxes.ack(ALICE, [(accepted(answers[0]).position, number(11))])
    await store.pairs.stock(ALICE, VAULT, [b"one", b"two", b"three"])
    await store.pairs.claim(ALICE, VAULT)
    await store.subscriptions.activate(ALICE, VAULT, 4)
    await store.states.put(ALICE, 2, b"state")
    return store


async def put_large(store: RocksStore, *owners: Username) -> dict[Username, bytes]:
    """Give each owner mail that fills blocks of its own, and return the body in the midst of it."""
    found: dict[Username, bytes] = {}
    for owner in owners:
        bodies = [os.urandom(20_000) for _ in range(5)]
        posts = [replace(post(100 + at, owner=owner), sealed=body) for at, body in enumerate(bodies)]
        await store.mailboxes.append(posts)
        found[owner] = bodies[2]
    return found


async def test_a_restored_backup_of_a_store_that_has_moved_may_run_again(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data")
    await store.contents.retire("elsewhere")
    await store.close()
    with stopped_snapshot(tmp_path / "data") as snapshot:
        copy_snapshot(snapshot, tmp_path / "backup")

    restore_backup(tmp_path / "backup", tmp_path / "restored")

    restored = await opened(tmp_path / "restored")
    assert await restored.contents.successor() == ""
    assert await restored.pairs.count(ALICE) == 0
    await restored.close()


async def test_a_backup_holds_what_was_acknowledged_before_and_shares_no_file_with_the_store(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data")
    async with store.snapshot() as snapshot:
        await store.mailboxes.append([post(99)])
        found = await asyncio.to_thread(copy_snapshot, snapshot, tmp_path / "backup")
    assert not snapshot.exists()
    before = await contents(store.mailboxes)

    copy = await opened(tmp_path / "backup")

    assert await contents(copy.mailboxes) == [entry for entry in before if entry.message_id != number(99)]
    assert copy.relay_id == store.relay_id
    assert await copy.states.get(ALICE) == (2, b"state")
    assert found == Findings(2, 21, 2)
    inodes = [{path.stat().st_ino for path in (tmp_path / place).iterdir()} for place in ("data", "backup")]
    assert not inodes[0] & inodes[1]
    await copy.close()
    await store.close()


async def test_a_snapshot_under_load_holds_every_acknowledged_message(tmp_path: Path) -> None:
    store = await opened(tmp_path / "data")
    acked: list[int] = []

    async def append_for_ever() -> None:
        for value in range(1, 100_000):
            accepted((await store.mailboxes.append([post(value)]))[0])
            acked.append(value)

    appending = asyncio.ensure_future(append_for_ever())
    while len(acked) < 50:  # noqa: ASYNC110 - the store tells nobody but its caller
        await asyncio.sleep(0.001)
    until_then = list(acked)
    async with store.snapshot() as snapshot:
        await asyncio.to_thread(copy_snapshot, snapshot, tmp_path / "backup")
    appending.cancel()
    await asyncio.gather(appending, return_exceptions=True)
    await store.close()

    copy = await opened(tmp_path / "backup")
    found = {entry.message_id for entry in await contents(copy.mailboxes)}
    assert found >= {number(value) for value in until_then}
    await copy.close()


async def test_the_store_of_a_stopped_relay_is_backed_up_too(tmp_path: Path) -> None:
    await (await filled(tmp_path / "data")).close()

    with stopped_snapshot(tmp_path / "data") as snapshot:
        assert copy_snapshot(snapshot, tmp_path / "backup") == Findings(2, 21, 2)

    assert verify_directory(tmp_path / "data") == Findings(2, 21, 2)
    assert not (tmp_path / "data" / "snapshot").exists()


async def test_a_target_that_holds_anything_is_refused_and_left_alone(tmp_path: Path) -> None:
    await (await filled(tmp_path / "data")).close()
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / "letter").write_text("dear operator")

    with stopped_snapshot(tmp_path / "data") as snapshot, pytest.raises(ConfigInvalid, match="not empty"):
        copy_snapshot(snapshot, backup)
    with pytest.raises(ConfigInvalid, match="not empty"):
        restore_backup(tmp_path / "data", backup)

    assert names_in(backup) == ["letter"]
    assert names_in(tmp_path) == ["backup", "data"]


async def test_a_backup_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data")
    body = (await put_large(store, BOB))[BOB]
    async with store.snapshot() as snapshot:
        flip_where(snapshot, body)
        with pytest.raises(StoreDamaged, match="bob"):
            copy_snapshot(snapshot, tmp_path / "backup")
        with pytest.raises(RelayUnavailable):
            copy_snapshot(snapshot, Path("/proc/backup"))
    await store.close()

    assert names_in(tmp_path) == ["data"]


async def test_memory_has_no_snapshot() -> None:
    store = open_memory_store(clock=ManualClock())

    with pytest.raises(Unsupported):
        store.snapshot()


async def test_what_a_killed_relay_left_of_a_snapshot_is_removed(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    async with store.snapshot() as snapshot:
        shutil.copytree(snapshot, tmp_path / "left")
    await store.close()
    (tmp_path / "left").rename(tmp_path / "snapshot")

    store = await opened(tmp_path)

    assert not (tmp_path / "snapshot").exists()
    await store.close()


async def test_verifying_a_sound_store_counts_it_and_changes_nothing(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    before = tree(tmp_path)

    assert verify_directory(tmp_path) == Findings(2, 21, 2)

    assert tree(tmp_path) == before


async def test_verifying_leaves_a_store_alone_that_a_relay_has_open(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    child = await asyncio.create_subprocess_exec(
        *("python3", "-c", "import fcntl,sys; fcntl.lockf(open(sys.argv[1], 'r+'), 6)", str(tmp_path / "LOCK")),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await child.wait() != 0  # the lock that verify takes is the one that the store holds
    await store.close()


@pytest.mark.parametrize("place", ["nowhere", "empty"])
async def test_where_no_store_is_nothing_is_verified_backed_up_or_restored(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConfigInvalid, match="no store"):
        verify_directory(tmp_path / place)
    with pytest.raises(ConfigInvalid, match="no store"), stopped_snapshot(tmp_path / place):
        pass
    with pytest.raises(ConfigInvalid, match="no store"):
        restore_backup(tmp_path / place, tmp_path / "data")
    assert names_in(tmp_path) == ["empty"]
    assert names_in(tmp_path / "empty") == []


_ENTRY = keys.entry(BOB, 3)
_DAMAGES: list[tuple[str, dict[bytes, bytes | None]]] = [
    ("does not decode", {_ENTRY: b"\xff"}),
    ("should hold 10 entries", {_ENTRY: None}),
    ("should hold 0 entries", {keys.mailbox(BOB): None}),
    ("should hold 10 entries", {keys.mailbox(BOB): u64(5) + u64(10) + u64(80)}),
    ("too short", {keys.mailbox(BOB): u64(11)}),
    ("index of repeats does not lead", {keys.attempt(BOB, BOB, number(3), 0): u64(4)}),
    ("index of repeats does not lead", {keys.attempt(BOB, BOB, number(3), 0): None}),
    ("index of repeats that leads to nothing", {keys.attempt(BOB, ALICE, number(3), 7): u64(4)}),
    ("would never expire", {keys.expiry(NOW + 1000, 3, BOB): None}),
    ("index of expiry that leads to nothing", {keys.expiry(NOW + 7, 3, BOB): b""}),
    ("the account of bob does not decode", {keys.user(BOB): b"\xc0"}),
    ("pairs of bob", {keys.pair(BOB, VAULT, 9): b"pair"}),
    ("subscriptions of bob", {keys.subscription(BOB): b""}),
]


@pytest.mark.parametrize(("sentence", "damage"), _DAMAGES)
async def test_whatever_does_not_fit_is_told_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentence: str, damage: dict[bytes, bytes | None]
) -> None:
    monkeypatch.setattr(tally, "_AT_HAND_BYTES", 0)  # everything is indexed
    await (await filled(tmp_path)).close()
    engine = Engine(tmp_path)
    engine.write(damage)
    engine.close()

    found = verify_directory(tmp_path)

    assert found.damaged == (BOB,)
    assert any(sentence in told and "bob" in told for told in found.damages), found


async def test_a_store_that_is_not_ours_or_newer_is_not_judged(tmp_path: Path) -> None:
    for schema in ({keys.SCHEMA: u16(9), keys.RELAY_ID: bytes(16)}, {b"key": b"value"}):
        directory = tmp_path / str(len(schema))
        directory.mkdir()
        engine = Engine(directory)
        engine.write(schema)
        engine.close()

        with pytest.raises(StoreDamaged, match=r"newer|not the store"):
            verify_directory(directory)


async def test_a_flipped_bit_names_the_mailboxes_it_hits_and_no_other(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    bodies = await put_large(store, ALICE, BOB, CAROL)
    async with store.snapshot():
        flip_where(tmp_path, bodies[ALICE])
        flip_where(tmp_path, bodies[CAROL])
    await store.close()

    found = verify_directory(tmp_path)

    assert found.damaged == (ALICE, CAROL)
    assert any("cannot be read" in told for told in found.damages)
    with pytest.raises(StoreDamaged, match="mailbox of alice, carol cannot be read"):
        await opened(tmp_path)


async def test_a_flipped_bit_in_the_list_of_accounts_is_found_and_named(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    signing_keys = [os.urandom(32) for _ in range(300)]
    for value, key in enumerate(signing_keys):
        await store.directory.register(account(name(value), key))
        await store.mailboxes.append([post(1, owner=name(value))])
    async with store.snapshot():
        flip_where(tmp_path, signing_keys[150])
    await store.close()

    found = verify_directory(tmp_path)

    assert name(150) in found.damaged
    assert len(found.damaged) < 100
    assert found.messages == 300


async def test_no_flipped_byte_of_a_table_is_a_silent_loss(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data")
    await put_large(store, BOB)
    mail = [await contents(store.mailboxes, owner) for owner in (ALICE, BOB)]
    async with store.snapshot() as snapshot:
        shutil.copytree(snapshot, tmp_path / "sound")
    await store.close()
    [table] = (tmp_path / "sound").glob("*.sst")
    octets = table.read_bytes()
    told = 0
    for at in range(7, len(octets), len(octets) // 40):
        table.write_bytes(octets[:at] + bytes([octets[at] ^ 0xFF]) + octets[at + 1 :])
        try:
            found = verify_directory(tmp_path / "sound")
        except StoreDamaged:
            told += 1
            continue
        if found.damages:
            told += 1
            continue
        copy = tmp_path / f"copy-{at}"
        shutil.copytree(tmp_path / "sound", copy)
        store = await opened(copy)
        assert [await contents(store.mailboxes, owner) for owner in (ALICE, BOB)] == mail
        await store.close()
    assert told > 30


async def test_reading_a_damaged_mailbox_names_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "_AT_HAND_BYTES", 0)
    store = await filled(tmp_path)
    body = (await put_large(store, BOB))[BOB]
    async with store.snapshot():
        flip_where(tmp_path, body)

    with pytest.raises(StoreDamaged, match="the mailbox of bob cannot be read"):
        await contents(store.mailboxes, BOB)
    found = {entry.message_id for entry in await contents(store.mailboxes)}
    assert found >= {number(1), number(12)}
    await store.close()


async def test_a_restored_store_is_the_backup_without_its_one_time_pairs(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data")
    async with store.snapshot() as snapshot:
        copy_snapshot(snapshot, tmp_path / "backup")
    mail = await contents(store.mailboxes)
    await store.close()
    before = tree(tmp_path / "backup")
    (tmp_path / "restored").mkdir()

    assert restore_backup(tmp_path / "backup", tmp_path / "restored") == Findings(2, 21, 2)

    assert tree(tmp_path / "backup") == before
    restored = await opened(tmp_path / "restored")
    assert restored.relay_id == store.relay_id
    assert await contents(restored.mailboxes) == mail
    assert await restored.pairs.count(ALICE) == 0
    assert await restored.pairs.claim(ALICE, VAULT) is None
    assert await restored.pairs.stock(ALICE, VAULT, [b"two"]) == 1
    await restored.close()


async def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    store = await filled(tmp_path / "data")
    body = (await put_large(store, BOB))[BOB]
    async with store.snapshot() as snapshot:
        copy_snapshot(snapshot, tmp_path / "backup")
    await store.close()
    flip_where(tmp_path / "backup", body)

    with pytest.raises(StoreDamaged, match="bob"):
        restore_backup(tmp_path / "backup", tmp_path / "restored")

    assert not (tmp_path / "restored").exists()


async def test_two_snapshots_wait_for_each_other(tmp_path: Path) -> None:
    store = await filled(tmp_path)

    async def once() -> bool:
        async with store.snapshot() as path:
            return path.is_dir()

    async with store.snapshot():
        second = asyncio.ensure_future(once())
        done, _ = await asyncio.wait([second], timeout=0.2)
        assert not done
    assert await second
    await store.close()
