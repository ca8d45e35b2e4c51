"""`aimessage-server migrate` as an operator types it, killed at any moment and typed again."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from aimessage.client import Settings, connect, register
from aimessage.clock import SystemClock
from aimessage.errors import RelayUnavailable
from aimessage.stores.ports import Quotas, Store
from aimessage.stores.rocksdb import open_rocksdb_store
from support.commands import BIN, Outcome, running_relay
from support.machines import Machine, eventually
from support.stores import VAULT, account, contents, name, post

UNBOUNDED = Quotas(messages=0, bytes=0, sender_share=0, controls=0, message_ttl_ms=0, control_ttl_ms=0)


async def opened(path: Path) -> Store:
    return await open_rocksdb_store(path, quotas=UNBOUNDED, clock=SystemClock())


async def filled(path: Path, accounts: int) -> None:
    """Make a store whose accounts each have forty messages and five pairs."""
    store = await opened(path)
    for value in range(accounts):
        await store.directory.register(account(name(value)))
        await store.mailboxes.append([post(each, owner=name(value), size=400) for each in range(40)])
        await store.pairs.stock(name(value), VAULT, [bytes([value % 256, each]) for each in range(5)])
    await store.close()


def words(origin: Path, end: Path) -> list[str | Path]:
    return [
        BIN / "aimessage-server", "--log-format", "json", "migrate",
        "--from", f"rocksdb:{origin}", "--to", f"rocksdb:{end}",
    ]  # fmt: skip


def migrated(origin: Path, end: Path) -> Outcome:
    done = subprocess.run(words(origin, end), capture_output=True, timeout=60, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def killed_after(seconds: float, origin: Path, end: Path) -> bool:
    """Start the command and kill it after *seconds*; return whether it was still at work."""
    with subprocess.Popen(words(origin, end), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    return False


@contextmanager
def stopped_while_copying(origin: Path, end: Path) -> Iterator[None]:
    """The command, stopped where it copies what comes first; killed at the end of the context."""
    with subprocess.Popen(words(origin, end), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert any(b"copying accounts" in line for line in process.stderr)
            process.send_signal(signal.SIGSTOP)
            yield
        finally:
            process.kill()


async def test_a_migration_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    origin, end = tmp_path / "origin", tmp_path / "end"
    await filled(origin, accounts=150)
    shutil.copytree(origin, tmp_path / "double")
    began = time.monotonic()
    migrated(tmp_path / "double", tmp_path / "rehearsal").ok()
    whole, random = time.monotonic() - began, Random(1)

    kills = sum(killed_after(whole * random.random(), origin, end) for _ in range(6))

    assert kills  # so that there was something to continue
    held = migrated(origin, end).ok().objects()[0]
    assert (held["accounts"], held["messages"], held["pairs"]) == (150, 6_000, 750)
    store = await opened(end)
    assert len(await contents(store.mailboxes, name(149))) == 40
    await store.close()


async def test_no_relay_starts_on_a_store_that_has_moved(tmp_path: Path) -> None:
    origin, end = tmp_path / "origin", tmp_path / "end"
    await filled(origin, accounts=1)
    migrated(origin, end).ok()

    with (
        pytest.raises(AssertionError, match="has moved to rocksdb:"),
        running_relay(tmp_path, "--db-path", str(origin)),
    ):
        pass
    with running_relay(tmp_path, "--db-path", str(end)) as relay:
        assert b"ok" in relay.health()


async def test_a_store_is_not_moved_to_two_places(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        assert b"ok" in relay.health()
    migrated(tmp_path / "data", tmp_path / "end").ok()

    elsewhere = migrated(tmp_path / "data", tmp_path / "third")

    assert elsewhere.code == 2
    assert "has moved to" in str(elsewhere.failure()["message"])
    assert not (tmp_path / "third").exists()


async def test_agents_of_a_running_relay_lose_nothing_when_its_store_moves(tmp_path: Path) -> None:
    with running_relay(tmp_path / "old") as old:
        url = f"ws://localhost:{old.port}"
        alice, bobby, carol = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby", "carol")
        await alice.send("bobby", "seen before")
        assert [message.text for message in await bobby.heard(1)] == ["seen before"]
        await alice.send("bobby", "waits")
        async with connect(carol.settings) as her:
            await alice.send("carol", "first")
            assert [message.text for message in await her.wait(timeout=30)] == ["first"]
            migrated(tmp_path / "old" / "data", tmp_path / "new").ok()
            status, why = old.ready()
            assert status == 503 and "has moved to rocksdb:" in why
            with pytest.raises(RelayUnavailable):  # kept, and told why
                async with connect(alice.settings) as me:
                    await me.send("carol", "in between", timeout=0.5)
            with pytest.raises(RelayUnavailable):
                await register(Settings(home=tmp_path / "home", agent="dave", server=url), "dave")
    with running_relay(tmp_path / "again", "--db-path", str(tmp_path / "new"), "--port", str(old.port)):
        await alice.send("carol", "after")
        async with connect(carol.settings) as her:
            texts = [message.text for message in await her.wait(timeout=30)]
            while len(texts) < 2:
                texts += [message.text for message in await her.wait(timeout=30)]
        assert texts == ["in between", "after"]
        assert [message.text for message in await bobby.heard(1)] == ["waits"]
        await Machine(tmp_path / "home", "bobby", url).send("alice", "sessions go on")
        assert [message.text for message in await alice.heard(1)] == ["sessions go on"]


async def test_a_relay_goes_on_as_before_when_the_move_dies_before_its_last_part(tmp_path: Path) -> None:
    await filled(tmp_path / "data", accounts=300)
    with running_relay(tmp_path) as relay:
        [alice, _] = await Machine.enrolled(tmp_path / "home", f"ws://localhost:{relay.port}", "alice", "bobby")
        with stopped_while_copying(tmp_path / "data", tmp_path / "end"):
            status, why = relay.ready()
            assert status == 503 and "is being moved" in why

        async def goes_on() -> bool:
            return relay.ready()[0] == 200

        await eventually(goes_on)
        async with connect(alice.settings) as me:
            assert (await me.send("bobby", "still taken in")).state == "accepted"
        held = migrated(tmp_path / "data", tmp_path / "end").ok().objects()[0]
        assert relay.ready()[0] == 503
    assert (held["accounts"], held["messages"]) == (302, 12_001)


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    command = [*words(tmp_path, tmp_path)[:-1], "nats://user:secret@127.0.0.1:4222"]

    refused = subprocess.run(command, capture_output=True, timeout=60, check=False)

    assert refused.returncode == 2
    assert b"secret" not in refused.stdout + refused.stderr


def test_an_address_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    absent = migrated(tmp_path / "nothing", tmp_path / "end")

    assert absent.code == 2
    assert "there is no store" in str(absent.failure()["message"])
    assert not (tmp_path / "nothing").exists()
