"""A relay on NATS starts only where what is acknowledged is on disk, as far as that can be known."""

from pathlib import Path

import pytest

from aimessage.errors import ConfigInvalid, RelayUnavailable
from aimessage.stores.jetstream import Access, open_jetstream_store
from support.nats import NatsServer
from support.stores import ManualClock, accepted, post


@pytest.fixture
async def empty_server(nats_server: NatsServer) -> NatsServer:
    await nats_server.empty()
    return nats_server


async def opened(access: Access, *, replicas: int = 1, unsafe: bool = False) -> None:
    clock = ManualClock()
    store = await open_jetstream_store(access, replicas=replicas, unsafe_durability=unsafe, clock=clock)
    try:
        [answer] = await store.mailboxes.append([post(1)])
        accepted(answer)
    finally:
        await store.close()


async def test_a_server_that_syncs_always_is_taken(empty_server: NatsServer) -> None:
    await opened(Access((empty_server.url,), monitors=(empty_server.monitor,)))


async def test_a_server_that_syncs_now_and_then_is_refused_with_the_line_that_mends_it(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, sync="2m").start()
    try:
        access = Access((server.url,), monitors=(server.monitor,))
        with pytest.raises(ConfigInvalid, match="has not synced") as refused:
            await opened(access)
        assert "jetstream { sync_interval: always }" in str(refused.value.hint)

        await opened(access, unsafe=True)
    finally:
        server.stop()


async def test_what_cannot_be_asked_is_refused(empty_server: NatsServer) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be confirmed") as refused:
        await opened(Access((empty_server.url,)))
    assert "--nats-monitor" in str(refused.value.hint)

    for monitor in ("http://127.0.0.1:1", empty_server.url, "file:///etc/hostname"):
        with pytest.raises(ConfigInvalid, match="does not answer"):
            await opened(Access((empty_server.url,), monitors=(monitor,)))


async def test_another_server_does_not_answer_for_the_one_that_holds_the_streams(
    empty_server: NatsServer, tmp_path: Path
) -> None:
    other = NatsServer(tmp_path).start()
    try:
        with pytest.raises(ConfigInvalid, match="holds a stream"):
            await opened(Access((empty_server.url,), monitors=(other.monitor,)))
    finally:
        other.stop()


async def test_more_copies_than_there_are_nodes_are_refused(empty_server: NatsServer) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be had"):
        await opened(Access((empty_server.url,), monitors=(empty_server.monitor,)), replicas=3)


async def test_streams_made_with_other_copies_than_asked_for_are_refused(empty_server: NatsServer) -> None:
    access = Access((empty_server.url,), monitors=(empty_server.monitor,))
    await opened(access)

    with pytest.raises(ConfigInvalid, match="--replicas asks for 3"):
        await opened(access, replicas=3)


async def test_where_nobody_answers_the_address_is_named_and_nothing_secret() -> None:
    with pytest.raises(RelayUnavailable, match=r"127\.0\.0\.1:1:") as refused:
        await opened(Access(("nats://somebody:secret@127.0.0.1:1",)))

    assert "secret" not in str(refused.value)
