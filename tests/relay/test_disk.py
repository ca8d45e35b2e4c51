"""A relay whose disk fills up and is emptied again: a small tmpfs and a bound on its files, with real links."""

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.errors import RelayUnavailable
from aimessage.relay.service import Service
from aimessage.stores.rocksdb import open_rocksdb_store
from aimessage.stores.rocksdb.engine import Engine
from aimessage.wire.frames import (
    Accepted,
    Ack,
    Acknowledge,
    Bye,
    CaughtUp,
    Deliver,
    ListUsers,
    Post,
    Proved,
    Refused,
    Users,
)
from support.commands import running_relay as relay_process
from support.relay import Peer, get, http, relay_config, running_relay

_DISK = 224 << 20
_FLOOR = 64 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount command here")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={_DISK}", "none", disk], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@contextmanager
def ballast(disk: Path, *, leaving: int) -> Iterator[None]:
    """Take space until *leaving* bytes are free; give it back at the end."""
    weight = disk / "ballast"
    with weight.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - leaving)
    try:
        yield
    finally:
        weight.unlink()


def posting(peer: Peer, to: str) -> Post:
    return Post(peer.next_id(), to, system_entropy(16), 0, 0, 0, bytes(500))


async def send(peer: Peer, to: str) -> Accepted | Refused:
    peer.send(posting(peer, to))
    return await peer.expect(Accepted, Refused)


async def acknowledge_one(peer: Peer) -> None:
    """Acknowledge the next delivery and wait until the relay has dealt with it."""
    delivery = await peer.expect(Deliver)
    peer.send(
        Acknowledge(delivery.subscription, [Ack(delivery.position, delivery.message_id)]), ListUsers(peer.next_id())
    )
    await peer.expect(Users)


@asynccontextmanager
async def recipient(url: str, secret: bytes, generation: int) -> AsyncIterator[tuple[Peer, int]]:
    """Bobby with a fresh subscription, and how much waited for him."""
    async with Peer(url, "bobby", secret) as bobby:
        await bobby.login()
        subscribed = await bobby.subscribe(generation)
        assert not isinstance(subscribed, Refused)
        yield bobby, subscribed.waiting


async def accepted_again(url: str, secret: bytes) -> int:
    """Try as a client does, until a post is accepted; return how often it was refused before."""
    refused = 0
    async with asyncio.timeout(60):
        while True:
            async with Peer(url, "alice", secret) as alice:
                verdict = await alice.login()  # refused for now while the store is opened again
                if isinstance(verdict, Proved) and isinstance(await send(alice, "bobby"), Accepted):
                    return refused
            refused += 1
            await asyncio.sleep(0.2)


async def test_below_the_floor_nothing_new_comes_in_while_mail_goes_out(small_disk: Path) -> None:
    async with running_relay(small_disk / "data", store="rocksdb") as url:
        async with Peer(url, "bobby") as bobby:
            await bobby.register()
        async with Peer(url, "alice") as alice:
            await alice.register()
            for _ in range(3):
                assert isinstance(await send(alice, "bobby"), Accepted)
            with ballast(small_disk, leaving=_FLOOR - (1 << 20)):
                refusal = await send(alice, "bobby")
                ready = await http(url, get("/ready"))
                async with recipient(url, bobby.secret, 1) as (receiver, waiting):
                    assert waiting == 3
                    await acknowledge_one(receiver)
                    await receiver.expect(CaughtUp)
                async with recipient(url, bobby.secret, 2) as (_, left):
                    assert left == 2
        await accepted_again(url, alice.secret)
        assert b"200 OK" in await http(url, get("/ready"))

    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.retry_after > 0) == ("relay_unavailable", True)
    assert b"503" in ready.split(b"\r\n")[0]


async def test_when_writes_fail_mail_can_still_be_read_and_the_relay_recovers_by_itself(tmp_path: Path) -> None:
    with relay_process(tmp_path) as relay:
        url = f"ws://127.0.0.1:{relay.port}"
        async with Peer(url, "bobby") as bobby:
            await bobby.register()
        async with Peer(url, "alice") as alice, recipient(url, bobby.secret, 1) as (reader, _):
            await alice.register()
            first = await send(alice, "bobby")
            delivery = await reader.expect(Deliver)
            limits = resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (100_000, limits[1]))
            accepted = [first] + [answer async for answer in sent_until_refused(alice, "bobby")]
            reader.send(Acknowledge(delivery.subscription, [Ack(delivery.position, delivery.message_id)]))
            bye = await reader.expect(Bye)
            delivered = [frame for frame in reader.frames if isinstance(frame, Deliver)]
            async with Peer(url, "alice", alice.secret) as asking:  # a login and a page of names are reads
                await asking.login()
                asking.send(ListUsers(asking.next_id(), everyone=True))
                assert len((await asking.expect(Users)).rows) == 2
            resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, limits)
        await accepted_again(url, alice.secret)
        async with recipient(url, bobby.secret, 2) as (again, waiting):
            await acknowledge_one(again)
        async with recipient(url, bobby.secret, 3) as (_, left):
            assert left == waiting - 1
        assert relay.stop() == 0

    assert bye.code == "relay_unavailable"
    assert len(delivered) == len(accepted) - 1
    assert waiting == len(accepted) + 1
    assert "Traceback" not in relay.log_path.read_text()


async def sent_until_refused(peer: Peer, to: str) -> AsyncIterator[Accepted]:
    async with asyncio.timeout(60):
        while isinstance(answer := await send(peer, to), Accepted):
            yield answer
    assert answer.code == "relay_unavailable"


async def test_the_sweep_of_expired_mail_outlives_a_store_that_cannot_answer(tmp_path: Path) -> None:
    config, clock = relay_config(tmp_path, store="rocksdb"), SystemClock()
    store = await open_rocksdb_store(tmp_path, clock=clock)
    await store.close()
    async with asyncio.TaskGroup() as tasks:
        sweep = tasks.create_task(Service(config, store, clock, system_entropy, tasks).sweep())
        done, _ = await asyncio.wait([sweep], timeout=0.3)
        sweep.cancel()

    assert not done


async def test_what_a_failed_commit_left_is_delivered_when_its_sender_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failures = Engine.write, list[str]()

    def write_and_fail(engine: Engine, items: Mapping[bytes, bytes | None], *, lasting: bool = True) -> None:
        write(engine, items, lasting=lasting)
        if failures:
            raise RelayUnavailable(failures.pop())

    monkeypatch.setattr(Engine, "write", write_and_fail)
    async with (
        running_relay(tmp_path / "data", store="rocksdb") as url,
        Peer(url, "alice") as alice,
        Peer(url, "bobby") as bobby,
    ):
        await alice.register()
        await bobby.register()
        await bobby.subscribe()
        post = posting(alice, "bobby")
        failures.append("it is in the log, and its sync failed")
        alice.send(post)
        answers: list[Accepted | Refused] = [await alice.expect(Accepted, Refused)]
        async with asyncio.timeout(60):
            while isinstance(answers[-1], Refused):
                await asyncio.sleep(0.2)
                alice.send(replace(post, id=alice.next_id()))
                answers.append(await alice.expect(Accepted, Refused))
        delivery = await bobby.expect(Deliver)

    assert isinstance(answers[0], Refused)
    assert isinstance(answers[-1], Accepted)
    assert answers[-1].duplicate
    assert delivery.message_id == post.message_id
