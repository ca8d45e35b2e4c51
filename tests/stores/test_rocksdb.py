"""What is RocksDB's own: reopening, crashes, damage, a full disk, and who may open it."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pytest
from msgspec.structs import replace
from rocksdict import Rdict, WriteBatch

from aimessage.errors import ConfigInvalid, RelayUnavailable, StoreDamaged
from aimessage.octets import u16, u64
from aimessage.stores.ports import Invite, Quotas, Refusal, Subscription
from aimessage.stores.rocksdb import RocksStore, keys, open_rocksdb_store, tally, verify_directory
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.writer import Batch
from support.stores import ALICE, BOB, NOW, VAULT, ManualClock, accepted, account, contents, number, post

TESTS = Path(__file__).parents[1]


async def opened(path: Path, quotas: Quotas | None = None) -> RocksStore:
    return await open_rocksdb_store(path, quotas=quotas, clock=ManualClock())


async def spawn(verb: str, path: Path) -> Process:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = (sys.executable, "-m", "support.store_process", verb, str(path))
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environ)


def tear_last_record(path: Path) -> None:
    """Leave the start of one more record in the log, of which nobody was told."""
    with max(path.glob("*.log")).open("ab") as log:
        log.write(b"\x01\x02\x03\x04\x05")


def overwrite_manifest(path: Path) -> None:
    [manifest] = path.glob("MANIFEST-*")
    manifest.write_bytes(b"not a manifest")


async def words(process: Process) -> list[str]:
    output, _ = await process.communicate()
    return output.decode().split()


async def test_an_invitation_and_its_use_survive_reopening_and_damage_to_it_is_named(tmp_path: Path) -> None:
    invite = Invite(b"i" * 32, "for the planners", NOW, NOW + 1000, 3)
    store = await opened(tmp_path)
    await store.invites.add(invite, now_ms=NOW)
    await store.invites.register(account(ALICE), invite.digest, now_ms=NOW)
    await store.close()

    store = await opened(tmp_path)
    found = await store.invites.all()
    await store.close()
    whole = verify_directory(tmp_path)
    engine = Engine(tmp_path)
    engine.write({keys.invite(invite.digest): b"nonsense"})
    engine.close()

    assert found == [replace(invite, used=1)]
    assert whole.damages == ()
    assert verify_directory(tmp_path).damages == ("an invitation does not decode",)


async def test_everything_survives_reopening(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    relay_id = store.relay_id
    await store.mailboxes.append([post(1), post(2), post(3, control=True)])
    await store.directory.register(account(ALICE))
    await store.pairs.stock(ALICE, VAULT, [b"one", b"two"])
    await store.pairs.claim(ALICE, VAULT)
    await store.subscriptions.activate(ALICE, VAULT, 4)
    await store.states.put(ALICE, 2, b"state")
    before = await contents(store.mailboxes)
    await store.close()

    store = await opened(tmp_path)

    assert store.relay_id == relay_id
    assert await contents(store.mailboxes) == before
    assert await store.directory.find(ALICE) == account(ALICE)
    assert await store.pairs.claim(ALICE, VAULT) == b"two"
    assert await store.pairs.claim(ALICE, VAULT) is None
    assert isinstance(await store.subscriptions.activate(ALICE, VAULT, 4), Refusal)
    assert await store.subscriptions.activate(ALICE, VAULT, 5) == Subscription(2, VAULT, 5)
    assert await store.states.get(ALICE) == (2, b"state")
    await store.close()


async def test_a_repeat_is_known_and_positions_go_on_after_reopening(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    first, second = map(accepted, await store.mailboxes.append([post(1), post(2)]))
    await store.mailboxes.ack(ALICE, [(first.position, number(1)), (second.position, number(2))])
    [third] = await store.mailboxes.append([post(3)])
    await store.close()

    store = await opened(tmp_path)
    again, fourth = await store.mailboxes.append([post(3), post(4)])

    assert again == replace(accepted(third), duplicate=True)
    assert accepted(fourth).position > accepted(third).position > second.position
    await store.close()


async def test_quotas_count_what_was_there_before_reopening(tmp_path: Path) -> None:
    quotas = Quotas(messages=8, sender_share=0.25, controls=2)
    store = await opened(tmp_path, quotas)
    await store.mailboxes.append([post(1), post(2), post(3, control=True), post(4, control=True)])
    await store.close()

    store = await opened(tmp_path, quotas)
    refused, taken = await store.mailboxes.append([post(5), post(6, control=True)])

    assert isinstance(refused, Refusal)
    accepted(taken)
    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(value) for value in (1, 2, 4, 6)]
    await store.close()


async def test_what_was_acked_survives_a_kill(tmp_path: Path) -> None:
    process = await spawn("append", tmp_path)
    assert process.stdout is not None
    acked = [int(await process.stdout.readline()) for _ in range(400)]
    process.kill()
    acked += [int(line) for line in (await process.communicate())[0].split()]
    tear_last_record(tmp_path)

    store = await opened(tmp_path)
    found = {entry.message_id for entry in await contents(store.mailboxes)}

    assert found >= {number(value) for value in acked}
    await store.close()


def newest_log(path: Path) -> Path:
    return max(path.glob("*.log"))


def torn_ends(path: Path) -> list[bytes]:
    """Return what was cut off the ends of logs."""
    return [torn.read_bytes() for torn in path.glob("*.torn")]


async def appended_by_a_killed_process(path: Path) -> list[int]:
    """Have a process append until it is killed; return what it had told by then."""
    process = await spawn("append", path)
    assert process.stdout is not None
    acked = [int(await process.stdout.readline()) for _ in range(50)]
    process.kill()
    return acked + [int(line) for line in (await process.communicate())[0].split()]


async def test_a_last_record_whose_rest_was_never_written_is_cut_off_and_kept_beside_the_log(tmp_path: Path) -> None:
    acked = await appended_by_a_killed_process(tmp_path)
    log = newest_log(tmp_path)
    size = log.stat().st_size
    with log.open("ab") as file:  # a whole head of a long record, half of its data, and then what a disk never got
        file.write(b"\x01\x02\x03\x04" + (2000).to_bytes(2, "little") + b"\x01" + b"half of a commit" + bytes(1984))

    store = await opened(tmp_path)
    found = {entry.message_id for entry in await contents(store.mailboxes)}
    await store.close()

    assert found >= {number(value) for value in acked}
    (torn,) = torn_ends(tmp_path)
    assert torn.rstrip(b"\0").endswith(b"half of a commit") and len(torn) <= size + 2007


async def test_damage_before_the_end_of_the_log_is_never_cut_off(tmp_path: Path) -> None:
    await appended_by_a_killed_process(tmp_path)
    log = newest_log(tmp_path)
    octets = bytearray(log.read_bytes())
    octets[len(octets) // 2] ^= 1
    log.write_bytes(octets + bytes(1024))

    with pytest.raises(StoreDamaged):
        await opened(tmp_path)
    assert log.read_bytes() == octets + bytes(1024) and not torn_ends(tmp_path)


async def test_a_second_opener_is_refused_at_once(tmp_path: Path) -> None:
    store = await opened(tmp_path)

    with pytest.raises(ConfigInvalid, match="in use by another relay"):
        await opened(tmp_path)
    assert await words(await spawn("open", tmp_path)) == ["config_invalid"]

    await store.close()
    assert await words(await spawn("open", tmp_path)) == ["opened"]


async def test_when_no_file_can_grow_appends_are_refused_until_it_can(tmp_path: Path) -> None:
    outcome = await words(await spawn("starve", tmp_path))

    assert outcome == ["relay_unavailable", "unwritable", "accepted", "whole"]
    assert await words(await spawn("open", tmp_path)) == ["opened"]


async def test_a_nearly_full_disk_refuses_what_grows_and_lets_mail_out(tmp_path: Path) -> None:
    free = [1 << 40]
    store = await open_rocksdb_store(tmp_path, clock=ManualClock(), free_bytes=lambda: free[0])
    [answer] = await store.mailboxes.append([post(1)])
    free[0] = 60 << 20

    [refused] = await store.mailboxes.append([post(2)])

    assert isinstance(refused, Refusal)
    assert refused.code == "relay_unavailable"
    assert await store.check_writable() == refused
    with pytest.raises(RelayUnavailable):
        await store.directory.register(account(ALICE))
    assert len(await contents(store.mailboxes)) == 1
    ack = store.mailboxes.ack(ALICE, [(accepted(answer).position, number(1))])
    answers, acked = await asyncio.gather(store.mailboxes.append([post(3)]), ack)
    assert (answers, acked) == ([refused], 1)
    free[0] = 1 << 40
    accepted((await store.mailboxes.append([post(2)]))[0])
    await store.close()


async def test_with_no_descriptor_to_look_at_the_disk_with_mail_still_goes_out(tmp_path: Path) -> None:
    has_descriptors = True

    def free() -> int:
        if has_descriptors:
            return 1 << 40
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    store = await open_rocksdb_store(tmp_path, clock=ManualClock(), free_bytes=free)
    [answer] = await store.mailboxes.append([post(1)])
    has_descriptors = False

    ack = store.mailboxes.ack(ALICE, [(accepted(answer).position, number(1))])
    [refused], acked = await asyncio.gather(store.mailboxes.append([post(2)]), ack)

    assert isinstance(refused, Refusal)
    assert (refused.code, acked) == ("relay_unavailable", 1)
    assert await contents(store.mailboxes) == []
    has_descriptors = True
    accepted((await store.mailboxes.append([post(2)]))[0])
    await store.close()


@pytest.mark.parametrize(
    "damage",
    [
        {keys.mailbox(BOB): u64(3) + u64(1) + u64(8)},
        {keys.mailbox(BOB): u64(3) + u64(2) + u64(17)},
        {keys.mailbox(BOB): None},
        {keys.mailbox(BOB): u64(2) + u64(2) + u64(16)},
        {keys.entry(BOB, 2): None},
        {keys.entry(BOB, 2): b"\xff"},
    ],
)
async def test_a_mailbox_that_does_not_match_its_record_is_named(
    tmp_path: Path, damage: dict[bytes, bytes | None]
) -> None:
    store = await opened(tmp_path)
    await store.mailboxes.append([post(1, owner=BOB), post(2, owner=BOB), post(3)])
    await store.close()
    engine = Engine(tmp_path)
    engine.write(damage)
    engine.close()

    with pytest.raises(StoreDamaged, match="mailbox of bob"):
        await opened(tmp_path)


async def test_a_store_that_the_engine_cannot_open_is_damaged(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    overwrite_manifest(tmp_path)

    with pytest.raises(StoreDamaged, match="does not open"):
        await opened(tmp_path)


@pytest.mark.parametrize("kind", ["*.log", "MANIFEST-*"])
@pytest.mark.parametrize("record", [0, 1, -1])
async def test_a_record_that_looks_like_a_leftover_of_an_older_file_is_damage(
    tmp_path: Path, kind: str, record: int
) -> None:
    store = await opened(tmp_path / "live", Quotas(sender_share=0))
    for value in range(1, 40):
        accepted((await store.mailboxes.append([post(value, size=40_000)]))[0])
    shutil.copytree(tmp_path / "live", tmp_path / "data", ignore=shutil.ignore_patterns("LOCK"))
    await store.close()
    [path] = (tmp_path / "data").glob(kind)
    octets = bytearray(path.read_bytes())
    octets[heads(bytes(octets))[record] + 6] ^= 4
    path.write_bytes(octets)

    with pytest.raises(StoreDamaged, match=f"the record at byte .* of {path.name}"):
        await opened(tmp_path / "data")
    with pytest.raises(StoreDamaged, match=f"the record at byte .* of {path.name}"):
        verify_directory(tmp_path / "data")


def heads(octets: bytes) -> list[int]:
    """Return where the whole and first records of a log begin."""
    at, found = 0, []
    while at + 7 <= len(octets):
        if (32 << 10) - at % (32 << 10) < 7:
            at += (32 << 10) - at % (32 << 10)
        elif octets[at + 6] == 0:
            break
        else:
            found += [at] if octets[at + 6] in (1, 2) else []
            at += 7 + int.from_bytes(octets[at + 4 : at + 6], "little")
    return found


async def test_reading_while_the_engine_is_closed_is_temporary(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.close()

    with pytest.raises(RelayUnavailable):
        await store.directory.find(ALICE)
    with pytest.raises(RelayUnavailable):
        await store.directory.names(after="", limit=1)


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    engine = Engine(tmp_path)
    engine.write({keys.SCHEMA: u16(3)})
    engine.close()

    for _ in range(2):
        with pytest.raises(StoreDamaged, match="newer version"):
            await opened(tmp_path)


class WatchedDatabase:
    """The engine's database; notes of each commit whether it was synced, and calls *between* before that."""

    def __init__(self, database: Rdict, between: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._between = between
        self.synced: list[bool] = []

    def write(self, batch: WriteBatch) -> None:
        self.synced.append(False)
        self._database.write(batch)

    def flush_wal(self, *, sync: bool) -> None:
        self._between()
        self._database.flush_wal(sync=sync)
        self.synced[-1] = sync

    def __getattr__(self, name: str) -> object:
        return getattr(self._database, name)


async def test_an_acknowledgement_waits_for_no_sync_and_few_wait_for_the_next(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    answers = await store.mailboxes.append([post(each) for each in range(1, 101)])
    watched = WatchedDatabase(store._engine._db)
    store._engine._db = watched  # type: ignore[assignment]

    for each, answer in enumerate(answers, start=1):
        await store.mailboxes.ack(ALICE, [(accepted(answer).position, number(each))])
    after_acks = list(watched.synced)
    await store.mailboxes.append([post(101)])
    await store.directory.register(account(ALICE))

    assert not any(after_acks[:10])
    assert 1 <= sum(after_acks) <= 20  # a power cut leaves no hole in the log, only an end
    assert watched.synced[len(after_acks) :] == [True, True]
    await store.close()
    store = await opened(tmp_path)
    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(101)]
    await store.close()


@pytest.mark.parametrize("at_hand_bytes", [16 << 20, 0])
async def test_nothing_is_delivered_that_is_not_on_disk_yet(
    tmp_path: Path, at_hand_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "_AT_HAND_BYTES", at_hand_bytes)
    store = await opened(tmp_path)
    await store.mailboxes.append([post(1)])
    engine = store._engine
    write, seen = engine.write, list[list[bytes]]()
    loop = asyncio.get_running_loop()

    def look() -> None:  # in the writer thread
        looking = asyncio.run_coroutine_threadsafe(contents(store.mailboxes), loop)
        seen.append([bytes(entry.message_id) for entry in looking.result(60)])

    def look_then_write(items: Mapping[bytes, bytes | None], *, lasting: bool = True) -> None:
        look()
        write(items, lasting=lasting)

    engine.write = look_then_write  # type: ignore[method-assign]
    engine._db = WatchedDatabase(engine._db, look)  # type: ignore[assignment]
    await store.mailboxes.append([post(2)])

    assert seen == [[number(1)], [number(1)]]  # before it is written, and before it is synced
    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(1), number(2)]
    await store.close()


async def told_of_alice(store: RocksStore) -> tuple[object, ...]:
    """Return all that is told of her from the engine."""
    found = await store.directory.find(ALICE)
    names = await store.directory.names(after="", limit=1)
    current = await store.subscriptions.current(ALICE)
    version, _ = await store.states.get(ALICE)
    return found and found.epoch, names, current and current.number, version


async def test_nothing_is_told_that_is_not_on_disk_yet(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    loop, seen = asyncio.get_running_loop(), list[tuple[object, ...]]()

    def look() -> None:  # in the writer thread
        seen.append(asyncio.run_coroutine_threadsafe(told_of_alice(store), loop).result(60))

    store._engine._db = WatchedDatabase(store._engine._db, look)  # type: ignore[assignment]
    await store.directory.register(account(BOB))
    await store.directory.register(account(ALICE))
    await store.directory.publish(ALICE, bundle=b"new", vault_id=VAULT, epoch=2)
    await store.subscriptions.activate(ALICE, VAULT, 7)
    await store.states.put(ALICE, version=3, blob=b"sealed")

    assert seen == [
        (None, [], None, 0),
        (None, [BOB], None, 0),
        (1, [ALICE], None, 0),
        (2, [ALICE], None, 0),
        (2, [ALICE], 1, 0),
    ]
    assert await told_of_alice(store) == (2, [ALICE], 1, 3)
    await store.close()


async def test_what_was_not_synced_is_not_told_until_the_store_is_opened_again(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    engine = store._engine
    can_grow = engine.can_grow

    def fail() -> None:
        raise OSError(errno.EIO, "the disk does not take it")

    engine._db = WatchedDatabase(engine._db, fail)  # type: ignore[assignment]
    engine.can_grow = lambda: False  # type: ignore[method-assign]
    with pytest.raises(RelayUnavailable):
        await store.directory.register(account(ALICE))
    meanwhile = await told_of_alice(store)
    engine.can_grow = can_grow  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        while await store.check_writable() is not None:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.05)

    assert meanwhile == (None, [], None, 0)
    assert await told_of_alice(store) == (1, [ALICE], None, 0)  # it was in the log, and is in a table now
    await store.close()


def test_an_engine_that_is_opened_again_tells_all_that_its_log_holds(tmp_path: Path) -> None:
    engine = Engine(tmp_path)

    def fail() -> None:
        raise OSError(errno.EIO, "the disk does not take it")

    engine._db = WatchedDatabase(engine._db, fail)  # type: ignore[assignment]
    with pytest.raises(RelayUnavailable):
        engine.write({b"u1": b"new"})
    before = engine.get(b"u1")
    engine.reopen()

    assert (before, engine.get(b"u1")) == (None, b"new")
    engine.close()


@pytest.mark.parametrize("limit", [1, 2, 3, 9])
def test_a_page_is_full_whatever_has_changed_in_it_meanwhile(tmp_path: Path, limit: int) -> None:
    engine = Engine(tmp_path)
    before = {b"u%d" % value: b"old" for value in range(0, 9, 2)}
    engine.write(dict.fromkeys(before, b"old"))
    seen = []
    engine._db = WatchedDatabase(  # type: ignore[assignment]
        engine._db, lambda: seen.append((engine.page(b"u", b"v", limit), engine.get(b"u0"), engine.get(b"u1")))
    )

    engine.write({b"u0": None, b"u1": b"new", b"u2": b"new", b"u3": b"new", b"u8": None})

    assert seen == [(sorted(before.items())[:limit], b"old", None)]
    assert engine.page(b"u", b"v", 9) == [
        (b"u1", b"new"), (b"u2", b"new"), (b"u3", b"new"), (b"u4", b"old"), (b"u6", b"old"),
    ]  # fmt: skip
    engine.close()


class Bystander:
    """A thread that goes on as long as it gets the interpreter's lock."""

    def __init__(self) -> None:
        self.steps = 0
        self._is_over = False
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Self:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(60)  # nobody is made to let go of it
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        sys.setswitchinterval(self._interval)

    def _go_on(self) -> None:
        while not self._is_over:
            self.steps += 1
            time.sleep(0)  # lets go of the lock, and wants it back


@pytest.fixture
def on_disk(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A directory on a disk: where files lie in memory, a sync takes no time. Temporary ones often do."""
    cache = pytestconfig.rootpath / ".pytest_cache"
    cache.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=cache) as directory:
        told = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=False)
        if told.stdout.strip() in ("tmpfs", "ramfs"):
            pytest.skip("the project lies in memory here")
        yield Path(directory)


def test_a_sync_holds_up_nobody_else(on_disk: Path) -> None:
    engine, meanwhile = Engine(on_disk), 0
    with Bystander() as bystander:
        for value in range(200):
            before = bystander.steps
            engine.write({b"key": u64(value)})
            meanwhile += bystander.steps > before
    engine.close()

    assert meanwhile > 40  # about 200; none if the lock is held until the disk has answered


def test_a_snapshot_holds_up_nobody_else(on_disk: Path) -> None:
    engine = Engine(on_disk / "store")
    for value in range(32):
        engine.write({u64(value): os.urandom(1 << 20)})
    with Bystander() as bystander:
        before = bystander.steps
        engine.checkpoint(on_disk / "snapshot")
        meanwhile = bystander.steps - before
    engine.close()

    assert meanwhile > 20  # hundreds; one or two if the lock is held until all is written


async def test_what_is_kept_at_hand_is_bounded_and_let_go(tmp_path: Path) -> None:
    store = await opened(tmp_path, Quotas(sender_share=0))
    answers = await store.mailboxes.append([post(value, size=60_000) for value in range(1, 301)])
    account = store._accounts.of(ALICE)
    assert store._accounts._bytes_at_hand <= 16 << 20 < 300 * 60_000
    assert not account.is_at_hand
    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(at) for at in range(1, 301)]

    await store.mailboxes.ack(ALICE, [(accepted(answer).position, number(at)) for at, answer in enumerate(answers, 1)])

    assert store._accounts._bytes_at_hand == 0
    assert account.is_at_hand
    assert await contents(store.mailboxes) == []


async def test_a_store_of_schema_1_where_every_entry_is_indexed_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as everything_indexed:
        everything_indexed.setattr(tally, "_AT_HAND_BYTES", 0)
        store = await opened(tmp_path)
        first, second = map(accepted, await store.mailboxes.append([post(1), post(2, ttl=50)]))
        await store.close()
    engine = Engine(tmp_path)
    record = engine.get(keys.mailbox(ALICE))
    assert record is not None
    engine.write({keys.SCHEMA: u16(1), keys.mailbox(ALICE): record[:24]})
    engine.close()

    store = await opened(tmp_path)
    again, third = map(accepted, await store.mailboxes.append([post(1), post(3, ttl=50)]))
    assert (again.position, again.duplicate, third.duplicate) == (first.position, True, False)
    await store.close()
    assert verify_directory(tmp_path).damages == ()

    store = await opened(tmp_path)
    assert accepted((await store.mailboxes.append([post(3)]))[0]).duplicate  # found though no index leads there
    assert await store.mailboxes.expire(NOW + 60, limit=10) == 2
    assert await store.mailboxes.ack(ALICE, [(first.position, number(1)), (second.position, number(2))]) == 1
    await store.close()
    engine = Engine(tmp_path)
    assert engine.get(keys.SCHEMA) == u16(2)
    left = [key[:1] for key, _ in engine.scan(b"a", b"z")]
    engine.close()
    assert left == [b"b"]


async def test_a_drained_mailbox_is_not_scanned_from_its_start(tmp_path: Path) -> None:
    store = await opened(tmp_path, Quotas(sender_share=0))
    answers = await store.mailboxes.append([post(value) for value in range(1, 3001)])
    pairs = [(accepted(answer).position, number(value)) for value, answer in enumerate(answers, 1)]

    await store.mailboxes.ack(ALICE, pairs[:-1][::-1])  # newest first, so that no ack moves the cursor along
    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(3000)]
    assert store._accounts.of(ALICE).first == pairs[-1][0]  # the scan itself moved it

    await store.mailboxes.ack(ALICE, pairs[-1:])
    assert await contents(store.mailboxes) == []
    assert store._accounts.of(ALICE).first == pairs[-1][0] + 1
    await store.close()


async def test_many_callers_share_commits(tmp_path: Path) -> None:
    store = await opened(tmp_path, Quotas(sender_share=0))

    answers = await asyncio.gather(*(store.mailboxes.append([post(value)]) for value in range(1, 2001)))

    assert len({accepted(answer).position for [answer] in answers}) == 2000
    assert (await store.mailboxes.depth(ALICE))[0] == 2000
    await store.close()


async def test_a_cancelled_caller_disturbs_nobody(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    waiting = [asyncio.ensure_future(store.mailboxes.append([post(value)])) for value in range(1, 5)]
    await asyncio.sleep(0)
    waiting[1].cancel()

    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert [isinstance(answer, list) for answer in answers] == [True, False, True, True]
    await store.close()


async def test_a_bug_in_one_job_fails_that_caller_and_undoes_what_was_counted(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.mailboxes.append([post(1)])

    def half_done(batch: Batch) -> None:
        store._accounts.post(batch, post(2))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store._writer.run(half_done, grows=True)

    [answer] = await store.mailboxes.append([post(3)])
    accepted(answer)
    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(1), number(3)]
    assert await store.mailboxes.depth(ALICE) == (2, 16)
    await store.close()
