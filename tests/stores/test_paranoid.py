"""The high-water mark: a store that has lost its end is refused, and a sound one never is."""

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from aimessage.errors import StoreDamaged
from aimessage.stores.ports import Quotas
from aimessage.stores.rocksdb import RocksStore, open_rocksdb_store
from aimessage.stores.rocksdb.mark import MARK_NAME, HighWaterMark
from support.stores import ALICE, ManualClock, accepted, contents, number, post

TESTS = Path(__file__).parents[1]
FREE = Quotas(messages=0, bytes=0, sender_share=0)
_SLOT = 4096
_BLOCK = 32 << 10


async def opened(path: Path, *, paranoid: bool = True) -> RocksStore:
    return await open_rocksdb_store(path, quotas=FREE, clock=ManualClock(), paranoid=paranoid)


async def filled(path: Path, commits: int = 60, *, paranoid: bool = True) -> None:
    """Make a store of so many commits, all of them in its log, and leave it as a crash would."""
    store = await opened(path / "live", paranoid=paranoid)
    for value in range(1, commits + 1):
        accepted((await store.mailboxes.append([post(value, size=400)]))[0])
    shutil.copytree(path / "live", path / "data", ignore=shutil.ignore_patterns("LOCK"))
    await store.close()


def log_of(directory: Path) -> Path:
    return max(directory.glob("*.log"), key=lambda path: path.stat().st_size)


def record_ends(octets: bytes) -> list[int]:
    """Return where the physical records of a write-ahead log end: 7 bytes of head, blocks of 32 KiB."""
    at, ends = 0, []
    while at + 7 <= len(octets):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(octets[at + 4 : at + 6], "little"), octets[at + 6]
        if kind == 0:
            break
        at += 7 + length
        ends.append(at)
    return ends


def marked(directory: Path) -> int:
    """Return what the mark of a store says, its two slots read here."""
    octets = (directory / MARK_NAME).read_bytes()
    return max(int.from_bytes(octets[at : at + 8], "big") for at in (0, _SLOT))


async def spawn(path: Path) -> Process:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = (sys.executable, "-m", "support.store_process", "append", str(path), "paranoid")
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environ)


async def test_a_log_cut_anywhere_is_refused_record_ends_included(tmp_path: Path) -> None:
    await filled(tmp_path)
    log = log_of(tmp_path / "data")
    octets = log.read_bytes()
    ends = record_ends(octets)
    assert len(ends) >= 60
    assert ends[-1] == len(octets)
    cuts = [0, *ends[:-1:3], *(end + 5 for end in ends[:-1:7]), len(octets) - 1]

    for cut in cuts:
        shutil.rmtree(tmp_path / "cut", ignore_errors=True)
        shutil.copytree(tmp_path / "data", tmp_path / "cut")
        os.truncate(tmp_path / "cut" / log.name, cut)
        with pytest.raises(StoreDamaged, match="changes are missing"):
            await opened(tmp_path / "cut")

    store = await opened(tmp_path / "data")
    assert len(await contents(store.mailboxes)) == 60
    await store.close()


async def test_without_the_mark_a_cut_at_the_end_of_a_record_is_not_seen(tmp_path: Path) -> None:
    await filled(tmp_path, paranoid=False)
    log = log_of(tmp_path / "data")
    os.truncate(log, record_ends(log.read_bytes())[-2])

    store = await opened(tmp_path / "data", paranoid=False)

    assert len(await contents(store.mailboxes)) == 59
    await store.close()


async def test_the_refusal_stays_until_the_operator_removes_the_mark(tmp_path: Path) -> None:
    await filled(tmp_path)
    log = log_of(tmp_path / "data")
    os.truncate(log, record_ends(log.read_bytes())[30])

    with pytest.raises(StoreDamaged, match="changes are missing"):
        await opened(tmp_path / "data")
    with pytest.raises(StoreDamaged, match="changes are missing") as refusal:
        await opened(tmp_path / "data")
    assert refusal.value.hint is not None
    assert MARK_NAME in refusal.value.hint
    (tmp_path / "data" / MARK_NAME).unlink()

    store = await opened(tmp_path / "data")
    assert len(await contents(store.mailboxes)) == 30  # the first record names the store
    await store.close()


async def test_what_is_answered_is_marked_before(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    for value in range(1, 30):
        await store.mailboxes.append([post(value)])
        assert marked(tmp_path) == store._engine._db.latest_sequence_number()
    await store.close()


async def test_a_killed_store_is_never_refused_and_never_shorter_than_its_answers(tmp_path: Path) -> None:
    for _ in range(6):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        process = await spawn(tmp_path / "data")
        assert process.stdout is not None
        acked = [int(await process.stdout.readline()) for _ in range(200)]
        process.kill()
        acked += [int(line) for line in (await process.communicate())[0].split()]

        store = await opened(tmp_path / "data")
        assert {entry.message_id for entry in await contents(store.mailboxes)} >= {number(value) for value in acked}
        await store.close()


async def test_a_store_that_came_further_than_its_mark_is_sound(tmp_path: Path) -> None:
    await filled(tmp_path)
    store = await opened(tmp_path / "data", paranoid=False)
    await store.mailboxes.append([post(999)])
    await store.close()

    store = await opened(tmp_path / "data")

    assert marked(tmp_path / "data") == store._engine._db.latest_sequence_number()
    await store.close()


async def test_switched_on_over_an_older_store_it_starts_there(tmp_path: Path) -> None:
    await filled(tmp_path, paranoid=False)

    store = await opened(tmp_path / "data")

    assert marked(tmp_path / "data") == store._engine._db.latest_sequence_number() > 60
    await store.close()


@pytest.mark.parametrize("slot", [0, 1])
async def test_a_torn_mark_leaves_the_other_one(tmp_path: Path, slot: int) -> None:
    await filled(tmp_path)
    path = tmp_path / "data" / MARK_NAME
    octets = bytearray(path.read_bytes())
    octets[slot * _SLOT + 6 : slot * _SLOT + 10] = b"torn"
    path.write_bytes(octets)

    store = await opened(tmp_path / "data")

    assert len(await contents(store.mailboxes)) == 60
    await store.close()


async def test_a_mark_of_which_nothing_reads_is_told(tmp_path: Path) -> None:
    await filled(tmp_path)
    (tmp_path / "data" / MARK_NAME).write_bytes(b"nonsense" * 1024)

    with pytest.raises(StoreDamaged, match="does not read"):
        await opened(tmp_path / "data")


def test_a_mark_that_was_torn_when_it_was_first_written_is_a_new_one(tmp_path: Path) -> None:
    HighWaterMark(tmp_path).close()
    path = tmp_path / MARK_NAME
    octets = bytearray(path.read_bytes())
    octets[:5] = b"torn!"
    path.write_bytes(octets)

    mark = HighWaterMark(tmp_path)

    mark.check(7)
    assert marked(tmp_path) == 7
    mark.close()


async def test_with_the_mark_a_full_disk_is_survived_as_without(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = (sys.executable, "-m", "support.store_process", "starve", str(tmp_path), "paranoid")
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environ)

    output, _ = await process.communicate()

    assert output.decode().split() == ["relay_unavailable", "unwritable", "accepted", "whole"]
    await (await opened(tmp_path)).close()


def test_one_missing_change_is_enough_and_a_torn_mark_falls_back_by_one(tmp_path: Path) -> None:
    mark = HighWaterMark(tmp_path)
    for sequence in (5, 6, 7):
        mark.advance(sequence)
    with pytest.raises(StoreDamaged, match="1 changes are missing"):
        mark.check(6)
    mark.close()
    path = tmp_path / MARK_NAME
    octets = bytearray(path.read_bytes())
    newest = next(at for at in (0, _SLOT) if octets[at + 7] == 7)
    octets[newest + 8] ^= 1
    path.write_bytes(octets)

    mark = HighWaterMark(tmp_path)

    with pytest.raises(StoreDamaged):
        mark.check(5)
    mark.check(6)
    mark.close()


async def test_the_mark_is_never_ahead_of_what_is_on_disk(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    [answer] = await store.mailboxes.append([post(1)])
    mark = (tmp_path / MARK_NAME).read_bytes()
    await store.mailboxes.ack(ALICE, [(accepted(answer).position, number(1))])
    assert (tmp_path / MARK_NAME).read_bytes() == mark
    await store.mailboxes.append([post(2)])
    assert (tmp_path / MARK_NAME).read_bytes() != mark
    await store.close()
