"""Two relays on one store in NATS: to an agent they are one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.relay.service import serving
from aimessage.wire.frames import Accepted, Ack, Acknowledge, Bye, CaughtUp, Deliver, ListUsers, Post, Refused, Users
from support.nats import NatsServer
from support.relay import Peer, get, http, relay_config, running_relay


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats")).start()
    yield server
    server.stop()


def flags(server: NatsServer) -> dict[str, str]:
    return {"store": server.url, "replicas": "1", "nats_monitor": server.monitor}


@pytest.fixture
async def urls(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[list[str]]:
    await nats_server.empty()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running_relay(tmp_path / name, **flags(nats_server)))
            for name in ("one", "two")
        ]


def post(peer: Peer, to: str, sealed: bytes = b"sealed") -> Post:
    return Post(peer.next_id(), to, system_entropy(16), 0, 0, 0, sealed)


async def test_what_is_sent_at_one_relay_arrives_at_the_other_at_once_and_after_a_pause(urls: list[str]) -> None:
    async with Peer(urls[0], "alice") as alice, Peer(urls[1], "bobby") as bobby:
        await alice.register()
        await bobby.register()
        alice.send(post(alice, "bobby", b"offline"))
        await alice.expect(Accepted)
        await bobby.subscribe()
        first = await bobby.expect(Deliver)
        await bobby.expect(CaughtUp)

        alice.send(post(alice, "bobby", b"online"))  # nothing but the wake tells the other relay in time
        second = await bobby.expect(Deliver)

        assert (first.sealed, second.sealed) == (b"offline", b"online")
        entries = [Ack(it.position, it.message_id) for it in (first, second)]
        bobby.send(Acknowledge(first.subscription, entries))
        bobby.send(ListUsers(bobby.next_id(), everyone=True))  # answered behind the acknowledgement
        users = await bobby.expect(Users)
    assert [row.username for row in users.rows] == ["alice", "bobby"]

    async with Peer(urls[0], "bobby", bobby.secret) as again:
        await again.login()
        await again.subscribe(2)
        await again.expect(CaughtUp)
        assert not any(isinstance(frame, Deliver) for frame in again.frames)


async def test_a_subscription_at_one_relay_ends_the_older_one_at_the_other(urls: list[str]) -> None:
    async with Peer(urls[0], "alice") as old, Peer(urls[1], "alice", old.secret) as new:
        await old.register()
        await old.subscribe()
        await new.login()

        await new.subscribe()

        assert (await old.expect(Bye)).code == "superseded"
        await old.ended()


async def test_a_name_that_one_relay_has_given_is_taken_at_the_other(urls: list[str]) -> None:
    async with Peer(urls[0], "alice") as alice, Peer(urls[1], "alice") as mallory:
        await alice.register()

        answer = await mallory.register()

    assert isinstance(answer, Refused)
    assert answer.code == "username_taken"


async def test_while_nats_is_away_the_relay_says_so_and_what_was_accepted_is_there_afterwards(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats").start()
    config = relay_config(tmp_path / "relay", **flags(server))
    try:
        async with serving(config, clock=SystemClock(), entropy=system_entropy) as service:
            url = f"ws://127.0.0.1:{service.port}"
            async with Peer(url, "alice") as alice:
                await alice.register()
                alice.send(post(alice, "alice", b"before"))
                await alice.expect(Accepted)
                server.stop(hard=True)

                alice.send(post(alice, "alice", b"while"))

                assert (await alice.expect(Refused)).code == "relay_unavailable"
                assert b" 503 " in await http(url, get("/ready"))
                assert b" 200 " in await http(url, get("/health"))
            server.start()
            while b" 200 " not in await http(url, get("/ready")):
                pass
            async with Peer(url, "alice", alice.secret) as again:
                await again.login()
                await again.subscribe()
                assert (await again.expect(Deliver)).sealed == b"before"
    finally:
        server.stop()


async def test_a_limit_holds_for_both_relays_together(nats_server: NatsServer, tmp_path: Path) -> None:
    await nats_server.empty()
    async with AsyncExitStack() as stack:
        limited = {"registrations": "10", **flags(nats_server)}
        urls = [await stack.enter_async_context(running_relay(tmp_path / name, **limited)) for name in ("one", "two")]
        answers = []
        for number in range(24):
            async with Peer(urls[number % 2], f"agent-{number}") as peer:
                answers.append(await peer.register())
    registered = [answer for answer in answers if not isinstance(answer, Refused)]
    assert len(registered) == 10
    assert {answer.code for answer in answers if isinstance(answer, Refused)} == {"rate_limited"}
