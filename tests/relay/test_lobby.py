"""Places for those who are not logged in: fair among addresses, from the accept to the login."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.relay.lobby import Guest, Lobby
from aimessage.relay.service import Service, serving
from aimessage.wire.frames import Proved
from support.relay import HOST, Peer, get, relay_config, running_relay
from support.sockets import OTHER, UPGRADE, dialled, over, status_of, until_status
from support.tls import Authority


class Door:
    """A lobby, and who came in and was cut, by name."""

    def __init__(self, most: int) -> None:
        self.cut: list[str] = []
        self.told = 0
        self.lobby = Lobby(most, self._tell)

    def _tell(self) -> None:
        self.told += 1

    def enter(self, address: str, name: str) -> Guest | None:
        guest = Guest(name, address, address, None, lambda: self.cut.append(name))
        return guest if self.lobby.enter(guest) else None


def test_an_address_may_have_all_places_until_another_one_asks() -> None:
    door = Door(4)
    assert all(door.enter("a", f"a{value}") for value in range(4))
    assert door.enter("a", "a4") is None

    assert [door.enter("b", f"b{value}") is not None for value in range(4)] == [True, True, False, False]
    assert door.enter("c", "c0") is not None
    assert door.cut == ["a0", "a1", "a2"]
    assert (len(door.lobby), door.told) == (4, 3)


def test_with_one_place_each_nobody_is_cut_for_a_stranger() -> None:
    door = Door(2)
    door.enter("a", "a0")
    door.enter("b", "b0")

    assert door.enter("c", "c0") is None
    assert door.cut == []


def test_who_leaves_twice_or_moves_is_counted_once() -> None:
    door = Door(3)
    guest = door.enter("proxy", "first")
    assert guest is not None

    door.lobby.move(guest, "client")
    assert (door.lobby.of("proxy"), door.lobby.of("client"), len(door.lobby)) == (0, 1, 1)
    assert [door.lobby.leave(guest) for _ in range(2)] == [True, False]
    door.lobby.move(guest, "elsewhere")
    assert len(door.lobby) == 0


async def test_one_address_that_holds_every_place_shuts_nobody_else_out(tmp_path: Path) -> None:
    async with running_relay(tmp_path, unauthenticated="3") as url, AsyncExitStack() as held:
        upgraded, _ = await held.enter_async_context(dialled(url, request=get("/", *UPGRADE)))
        await upgraded.readuntil(b"\r\n\r\n")
        for _ in range(2):
            await held.enter_async_context(dialled(url))
        assert await status_of(url) == 503
        assert await status_of(url, OTHER) == 404
        await over(upgraded)
        await until_status(url, 404)  # the place of the one that was cut is free now


async def test_the_time_for_the_login_runs_from_the_accept_and_through_the_upgrade(tmp_path: Path) -> None:
    config = relay_config(tmp_path, login_seconds="30")
    async with serving(config, clock=SystemClock(), entropy=system_entropy) as service:
        url = f"ws://{HOST}:{service.port}"
        async with dialled(url) as (reader, writer):
            (at_the_accept,) = await guests(service, 1)
            deadline = at_the_accept.deadline
            writer.write(get("/", *UPGRADE))
            await reader.readuntil(b"\r\n\r\n")
            (link,) = service._links
            assert link.guest is at_the_accept
            assert link.guest.deadline == deadline is not None
        async with Peer(url, "alice") as alice:
            assert isinstance(await alice.register(), Proved)
            assert len(service._lobby) == 0
            assert service._sockets_of(HOST) == 1
        await guests(service, 0)
        async with asyncio.timeout(60):
            while service._sockets_of(HOST):  # noqa: ASYNC110  # the condition is the relay's
                await asyncio.sleep(0.01)


async def guests(service: Service, count: int) -> list[Guest]:
    """Wait until so many sockets are not logged in; return them."""
    async with asyncio.timeout(60):
        while len(service._lobby) != count:  # noqa: ASYNC110  # the condition is the relay's
            await asyncio.sleep(0.01)
    return [guest for those in service._lobby._guests.values() for guest in those]


async def test_tls_handshakes_in_progress_have_places_and_a_time_as_others_do(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain = str(authority.issue("127.0.0.1"))
    trusting = ssl.create_default_context(cafile=str(authority.ca_file))

    async def answered(url: str, source: str) -> bytes:
        port = int(url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection(HOST, port, ssl=trusting, local_addr=(source, 0))
        writer.write(get("/health"))
        async with asyncio.timeout(60):
            answer = await reader.read()
        writer.transport.abort()
        return answer

    flags = {"tls_cert": chain, "tls_key": chain}
    async with running_relay(tmp_path, unauthenticated="2", **flags) as url, AsyncExitStack() as held:
        first, _ = await held.enter_async_context(dialled(url, request=b"\x16\x03\x01"))
        await held.enter_async_context(dialled(url))
        async with dialled(url) as (third, _):
            await over(third)
        assert b"200 OK" in await answered(url, OTHER)
        await over(first)
    async with running_relay(tmp_path, connections_per_address="1", **flags) as url, dialled(url):
        async with dialled(url) as (second, _):
            await over(second)
        assert b"200 OK" in await answered(url, OTHER)
    async with running_relay(tmp_path, login_seconds="0.3", **flags) as url, dialled(url) as (silent, _):
        await over(silent)
