"""The installed command, as a process."""

import asyncio
import json
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aimessage.wire.frames import Accepted, Bye, Deliver, Done, FetchState, Post, Proved, StateAnswer, StoreState
from support.relay import Peer, get, http

SERVER = (sys.executable, "-m", "aimessage.relay.app")


@asynccontextmanager
async def server(*words: str, **environment: str) -> AsyncIterator[tuple[Process, str]]:
    process = await asyncio.create_subprocess_exec(
        *SERVER, "--port", "0", *words, stdout=PIPE, stderr=PIPE, env={"PATH": "/usr/bin:/bin", **environment}
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"ws://127\.0\.0\.1:\d+", line)
        assert found is not None, line
        yield process, line
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def url_of(line: str) -> str:
    found = re.search(r"ws://[0-9.]+:\d+", line)
    assert found is not None
    return found[0]


async def test_the_command_serves_and_a_signal_drains_it(tmp_path: Path) -> None:
    async with server("--store", "memory") as (process, line):
        url = url_of(line)
        assert line == f"aimessage-server listening on {url} (store memory)\n"
        assert b"200 OK" in await http(url, get("/health"))
        async with Peer(url, "alice") as alice:
            await alice.register()
            process.send_signal(signal.SIGTERM)
            bye = await alice.expect(Bye)
            await alice.ended()
        assert await process.wait() == 0

    assert bye.code == "relay_unavailable"


async def test_who_is_sent_away_by_a_drain_is_told_when_to_come_back_each_at_another_moment() -> None:
    async with AsyncExitStack() as stack:
        process, line = await stack.enter_async_context(server("--store", "memory"))
        peers = [await stack.enter_async_context(Peer(url_of(line), f"agent-{number}")) for number in range(8)]
        process.send_signal(signal.SIGTERM)
        waits = [(await peer.expect(Bye)).retry_after for peer in peers]

    assert all(0.5 <= wait < 2.5 for wait in waits)
    assert len(set(waits)) > 1


async def test_mail_and_names_outlive_the_process(tmp_path: Path) -> None:
    words = ("--db-path", str(tmp_path / "data"))
    async with server(*words) as (process, line), Peer(url_of(line), "alice") as alice:
        await alice.register()
        alice.send(Post(1, "alice", bytes(16), 0, 0, 0, b"kept"))
        await alice.expect(Accepted)
        process.kill()
        await process.wait()
    async with server(*words) as (_, line), Peer(url_of(line), "alice", alice.secret) as again:
        assert isinstance(await again.login(), Proved)
        await again.subscribe()
        delivery = await again.expect(Deliver)

    assert again.welcome.relay_id == alice.welcome.relay_id
    assert delivery.sealed == b"kept"


async def test_with_json_logs_every_line_is_json() -> None:
    async with server("--store", "memory", LOG_FORMAT="json") as (process, line):
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()

    assert json.loads(line)["event"] == "listening"
    assert (out, err) == (b"", b"")
    assert process.returncode == 0


async def run(*words: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(*SERVER, *words, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_a_taken_port_is_one_sentence_and_a_hint() -> None:
    async with server("--store", "memory") as (_, line):
        code, _, err = await run("--store", "memory", "--port", url_of(line).rsplit(":", 1)[1])

    assert code == 1
    assert "cannot listen on" in err
    assert "hint: choose another port" in err
    assert "Traceback" not in err


async def test_config_check_and_show(tmp_path: Path) -> None:
    code, out, _ = await run("--port", "9000", "config", "show")
    assert (code, json.loads(out)["port"]) == (0, 9000)
    assert json.loads(out)["connections_automatic"] is True
    assert json.loads(out)["connections"] >= 16  # what it would run with, from the descriptor limit
    _, out, _ = await run("--connections", "50", "config", "show")
    assert (json.loads(out)["connections"], json.loads(out)["connections_automatic"]) == (50, False)
    code, _, err = await run("--port", "nine", "config", "check")
    assert code == 2
    assert "--port cannot be 'nine'" in err


def resident_kib(process: Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


async def test_a_peer_that_asks_and_never_reads_costs_little_memory() -> None:
    async with (
        server("--store", "memory", "--rate-connection", "0") as (process, line),
        Peer(url_of(line), "alice") as alice,
        Peer(url_of(line), "bobby") as bobby,
    ):
        await alice.register()
        await bobby.register()
        alice.send(StoreState(alice.next_id(), 1, bytes(60_000)))
        await alice.expect(Done)
        before = resident_kib(process)
        alice.transport.underlying_transport.pause_reading()
        for _ in range(20):
            alice.send(*(FetchState(alice.next_id()) for _ in range(100)))
        for _ in range(200):  # bobby's answers show that the relay has had its turns
            bobby.send(FetchState(bobby.next_id()))
            await bobby.expect(StateAnswer)
        after = resident_kib(process)

    assert after - before < 8 << 10
