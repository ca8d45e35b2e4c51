"""Who we are to NATS, by files alone; TLS both ways; and durability that the system account confirms or does not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from aimessage.clock import SystemClock
from aimessage.errors import AimessageError, ConfigInvalid, RelayUnavailable
from aimessage.stores.jetstream import Access, open_jetstream_store
from support.commands import plainly
from support.nats import NatsServer
from support.nats_cluster import CONF, NatsCluster, running_cluster
from support.stores import account, name
from support.tls import Authority

SECRET = "s3cr3t-of-the-relay"
ACCOUNTS = """
accounts {
  MAIL { jetstream: enabled, users: [{ user: relay, password: "%s" }] }
  SYS { users: [{ user: sys, password: "%s" }] }
}
system_account: SYS
"""


@contextmanager
def running_nats(directory: Path, extra: str) -> Iterator[NatsServer]:
    server = NatsServer(directory / "nats", extra=extra)
    try:
        yield server.start()
    finally:
        server.stop(hard=True)


def credentials(directory: Path, line: str) -> Path:
    path = directory / f"{len(list(directory.glob('*.creds')))}.creds"
    path.write_text(line + "\n")
    return path


async def is_served(access: Access, *, replicas: int = 1, unsafe: bool = True) -> None:
    """A store opens there, confirmed unless *unsafe*, and takes an account."""
    store = await open_jetstream_store(access, replicas=replicas, unsafe_durability=unsafe, clock=SystemClock())
    try:
        assert await store.directory.register(account(name(1))) == await store.directory.find(name(1))
    finally:
        await store.close()


async def refusal(access: Access, *, replicas: int = 1) -> AimessageError:
    with pytest.raises((ConfigInvalid, RelayUnavailable)) as raised:
        await is_served(access, replicas=replicas, unsafe=False)
    assert SECRET not in f"{raised.value} {raised.value.hint}"
    return raised.value


@pytest.mark.parametrize(
    ("authorization", "line"),
    [
        (f'user: relay, password: "{SECRET}"', f"user relay {SECRET}"),
        (f'token: "{SECRET}"', f"token {SECRET}"),
    ],
    ids=["password", "token"],
)
async def test_a_name_or_a_token_lies_in_a_file_and_is_told_nowhere(
    tmp_path: Path, authorization: str, line: str
) -> None:
    with running_nats(tmp_path, f"authorization {{ {authorization} }}") as server:
        ours = Access((server.url,), credentials(tmp_path, line))
        await is_served(ours)

        stranger = await refusal(replace(ours, credentials=None))
        flags = ("--store", server.url, "--nats-creds", str(ours.credentials), "--replicas", "1")
        shown, started = await asyncio.gather(plainly(*flags, "config", "show"), plainly(*flags, "--port", "0"))

    assert "authorization" in stranger.message.lower()
    assert (shown.code, started.code) == (0, 2)  # it is not confirmed that this one node syncs
    assert "cannot be confirmed" in started.talk
    assert SECRET not in shown.text + shown.talk + started.text + started.talk


async def test_a_reason_that_was_told_once_is_told_although_later_tries_are_only_cut() -> None:
    tries = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            writer.write(b'INFO {"server_id":"x","version":"2.15.1","proto":1,"max_payload":1024}\r\n')
            await reader.readline()
            writer.write(b"-ERR 'Authorization Violation'\r\n")
            await writer.drain()
            await reader.read()
        writer.transport.abort()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await refusal(Access((f"nats://127.0.0.1:{port}",)))
    assert "authorization" in told.message.lower()
    assert tries > 1


async def test_nats_is_believed_by_its_authority_and_sees_our_certificate(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    its, ours = authority.issue("127.0.0.1"), authority.issue("relay.example")
    files = f'cert_file: "{its}", key_file: "{its}", ca_file: "{authority.ca_file}", verify: true'
    with running_nats(tmp_path, f"tls {{ {files} }}") as server:
        access = Access((server.url,), certificate_authority=authority.ca_file, certificate=ours, key=ours)
        await is_served(access)

        unknown = await refusal(replace(access, certificate=None, key=None))
        unbelieved = await refusal(replace(access, certificate_authority=stranger.ca_file))
        absent = await refusal(replace(access, key=tmp_path / "nowhere.pem"))

    assert (unknown.code, unbelieved.code) == ("relay_unavailable", "relay_unavailable")
    assert "verify failed" in unbelieved.message
    assert "--nats-key cannot be used" in absent.message


@asynccontextmanager
async def nodes_with_accounts(folder: Path, *, syncs: bool = True) -> AsyncIterator[tuple[NatsCluster, Access]]:
    """Three nodes with a system account and one for mail, and how a relay comes to both."""
    text = CONF.read_text() + ACCOUNTS % (SECRET, SECRET)
    conf = folder / "nats.conf"
    conf.write_text(text if syncs else text.replace("sync_interval: always", ""))
    mail, system = credentials(folder, f"user relay {SECRET}"), credentials(folder, f"user sys {SECRET}")
    async with running_cluster(folder, conf) as cluster:
        yield cluster, Access(tuple(cluster.urls), mail, system=system)


async def test_the_system_account_confirms_three_nodes_and_no_fewer(tmp_path: Path) -> None:
    async with nodes_with_accounts(tmp_path) as (cluster, access):
        await is_served(access, replicas=3, unsafe=False)

        other = await refusal(replace(access, system=access.credentials), replicas=3)
        await cluster.nodes[2].kill()
        fewer = await refusal(access, replicas=3)

    assert "not for the system account" in other.message or "no NATS node answers" in other.message
    assert "system_account: SYS" in str(other.hint)
    assert "n2" in fewer.message


async def test_nodes_that_do_not_sync_are_refused_with_the_line_that_mends_it(tmp_path: Path) -> None:
    async with nodes_with_accounts(tmp_path, syncs=False) as (_, access):
        unsynced = await refusal(access, replicas=3)

    assert "has not synced" in unsynced.message
    assert "sync_interval: always" in str(unsynced.hint)
