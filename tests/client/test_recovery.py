"""What an agent survives: a relay that goes and comes back, somebody else in its place, commands that race."""

import asyncio
import contextlib
import os
import socket
import sys
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from aimessage.client import Message, Settings, connect, register, token_text
from aimessage.client.account import open_here
from aimessage.client.profile import load_profile
from aimessage.errors import PeerIdentityChanged, RelayChanged, RelayUnreachable, Superseded
from aimessage.types import SecretBytes, Username
from support.relay import running_relay


def settings(tmp_path: Path, url: str, agent: str) -> Settings:
    return Settings(home=tmp_path / "home", agent=agent, server=url)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


async def heard_one(who: Settings) -> Message:
    async with connect(who) as me, aclosing(me.listen()) as messages:
        return await anext(messages)


async def until_online(who: Settings, name: str) -> None:
    async with asyncio.timeout(60), connect(who) as me:
        while not any(row.username == name for row in await me.users()):  # noqa: ASYNC110 - the relay has no such event
            await asyncio.sleep(0.02)


async def test_listen_outlives_a_restart_with_somebody_else_in_between(tmp_path: Path) -> None:
    port = free_port()
    flags = {"port": port, "store": "rocksdb", "db_path": str(tmp_path / "db")}
    alice, bobby = (settings(tmp_path, f"ws://127.0.0.1:{port}", name) for name in ("alice", "bobby"))
    async with running_relay(tmp_path, **flags):
        for each in (alice, bobby):
            await register(each, each.agent)
        waiting = asyncio.create_task(heard_one(bobby))
        await until_online(alice, "bobby")
    answered = asyncio.Event()

    async def bad_gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            answered.set()
        writer.close()

    proxy = await asyncio.start_server(bad_gateway, "127.0.0.1", int(port))
    async with asyncio.timeout(60):
        await answered.wait()
    proxy.close()
    await proxy.wait_closed()
    assert not waiting.done()
    async with running_relay(tmp_path, **flags):
        async with connect(alice) as me:
            await me.send("bobby", "after all that")
        async with asyncio.timeout(60):
            assert (await waiting).text == "after all that"


async def test_a_message_that_is_kept_goes_out_with_the_next_command_also_to_a_new_peer(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        alice, bobby = (settings(tmp_path, url, name) for name in ("alice", "bobby"))
        for each in (alice, bobby):
            await register(each, each.agent)
        async with connect(replace(alice, server="ws://127.0.0.1:9")) as me:
            with pytest.raises(RelayUnreachable) as caught:
                await me.send("bobby", "first", timeout=timedelta(milliseconds=300))
        assert caught.value.message_id
        async with connect(alice) as me:
            await me.send("bobby", "second")
        async with connect(bobby) as me, aclosing(me.listen(count=2)) as messages:
            came = [(message.id, message.text) async for message in messages]
        assert came[0] == (caught.value.message_id, "first")


async def test_a_key_that_an_address_does_not_name_is_not_even_pinned(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        alice, bobby, carol = (settings(tmp_path, url, name) for name in ("alice", "bobby", "carol"))
        for each in (alice, bobby, carol):
            await register(each, each.agent)
        async with connect(carol) as me:
            wrong = "bobby~" + me.address.partition("~")[2]
        async with connect(alice) as me:
            with pytest.raises(PeerIdentityChanged):
                await me.send(wrong, "for one key only")
        here = open_here(load_profile(alice), None)
        with here.vault.transaction() as vault:
            peer = vault.peer(here.address(Username("bobby")))
            assert (peer.pin, peer.conversation.sessions) == (None, ())
            assert vault.run("SELECT count(*) FROM outbox").fetchone() == (0,)
        here.vault.close()
        async with connect(bobby) as me:
            right = me.address
        async with connect(alice) as me:
            assert (await me.send(right, "for this one")).state == "accepted"


async def test_first_commands_that_race_in_a_new_container_restore_one_identity(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        alice = settings(tmp_path, url, "alice")
        await register(alice, "alice")
        environ = dict(os.environ) | {
            "AIMESSAGE_HOME": str(tmp_path / "container"),
            "AIMESSAGE_SERVER": url,
            "AIMESSAGE_USERNAME": "alice",
            "AIMESSAGE_TOKEN": token_text(alice),
        }
        command = Path(sys.executable).with_name("aimessage")
        started = [
            await asyncio.create_subprocess_exec(
                command, "whoami", "--json", env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            for _ in range(6)
        ]
        told = [await process.communicate() for process in started]
        assert [process.returncode for process in started] == [0] * 6, told
        assert len({out for out, _ in told}) == 1


async def test_another_machine_takes_over_and_the_older_listen_is_told(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        alice, bobby = (settings(tmp_path, url, name) for name in ("alice", "bobby"))
        for each in (alice, bobby):
            await register(each, each.agent)
        older = asyncio.create_task(heard_one(bobby))
        await until_online(alice, "bobby")
        token = SecretBytes(token_text(bobby).encode())
        newer = asyncio.create_task(
            heard_one(Settings(tmp_path / "other", "bobby", url, username="bobby", token=token))
        )
        async with asyncio.timeout(60):
            with pytest.raises(Superseded):
                await older
            async with connect(alice) as me:
                await me.send("bobby", "to the newer one")
            assert (await newer).text == "to the newer one"


async def test_another_relay_at_the_same_address_is_refused(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        alice = settings(tmp_path, url, "alice")
        await register(alice, "alice")
    async with running_relay(tmp_path) as other, connect(replace(alice, server=other)) as me:
        with pytest.raises(RelayChanged):
            await me.users()
