"""Whatever a peer or a relay writes, a terminal shows it and obeys none of it: every command, a real pty."""

import asyncio
import contextlib
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from aimessage.client import Settings, connect, register
from aimessage.client.profile import load_profile
from aimessage.wire.codec import encode_frames
from aimessage.wire.frames import ClientFrame, ListUsers, Prove, Refused, Register, UserRow, Users
from aimessage.wire.link import RelayLink
from support.hostile import hostile
from support.machines import eventually
from support.pipes import free
from support.raw import RawLetter, send_raw
from support.relay import Peer, running_relay
from support.terminal import ESCAPES, at_terminal, obeyed

ALL = "".join(ESCAPES)


class Shell:
    """What bobby types, each time at a fresh terminal."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.seen = b""

    async def types(self, *arguments: str, code: int = 0, **environ: str) -> bytes:
        """Run one command, which must end with *code*, and return what the terminal was sent."""
        got, output = await at_terminal(
            "aimessage", *arguments, environ={"AIMESSAGE_HOME": str(self._home), "AIMESSAGE_AGENT": "bobby", **environ}
        )
        assert got == code, output
        assert obeyed(output) == [], arguments
        return output


@asynccontextmanager
async def mallory_and_bobby(tmp_path: Path) -> AsyncIterator[tuple[Settings, Shell, str]]:
    async with running_relay(tmp_path) as url:
        mallory, bobby = (Settings(tmp_path / "home", name, url) for name in ("mallory", "bobby"))
        for each in (mallory, bobby):
            await register(each, each.agent)
        yield mallory, Shell(tmp_path / "home"), url


@pytest.mark.parametrize(
    "arguments",
    [
        ["inbox", "--peek"],
        ["inbox", "--peek", "--json"],
        ["inbox", "--peek", "--render", "fenced"],
        ["inbox"],
        ["wait"],
        ["wait", "--json"],
        ["wait", "--render", "fenced"],
        ["listen", "-C", "2"],
        ["listen", "-C", "2", "--json"],
        ["listen", "-C", "2", "--render", "fenced"],
        ["listen", "-C", "2", "--exec", "cat /dev/null"],
        ["history"],
        ["history", "--json"],
    ],
    ids=" ".join,
)
async def test_a_body_a_thread_and_data_are_shown_and_not_obeyed(tmp_path: Path, arguments: list[str]) -> None:
    async with mallory_and_bobby(tmp_path) as (mallory, shell, _):
        async with connect(mallory) as evil:
            await send_raw(evil, "bobby", RawLetter("words " + ALL, thread=ALL))
            await send_raw(evil, "bobby", RawLetter(None, {ALL: [ALL]}))
        if arguments[0] == "history":
            await shell.types("inbox", "--limit", "2")

        output = await shell.types(*arguments)

    assert b"words" in output
    assert b"1B" in output or b"1b" in output  # what was neutralised is there, as its number


async def test_reading_a_message_obeys_nothing_however_it_is_cut(tmp_path: Path) -> None:
    async with mallory_and_bobby(tmp_path) as (mallory, shell, _):
        async with connect(mallory) as evil:
            message_id = await send_raw(evil, "bobby", RawLetter(ALL * 20))
        await shell.types("inbox", "--peek")
        for offset in range(0, 60, 7):
            await shell.types("read", message_id, "--offset", str(offset), "--max-chars", "1200")
        assert b"\\u{1B}" in await shell.types("read", message_id)


async def test_an_answer_obeys_nothing(tmp_path: Path) -> None:
    async with (
        mallory_and_bobby(tmp_path) as (mallory, shell, _),
        connect(mallory) as evil,
        asyncio.TaskGroup() as group,
    ):

        async def answer() -> None:
            (question,) = await evil.wait(timeout=60)
            await send_raw(evil, "bobby", RawLetter("answer " + ALL, reply_to=question.id))

        group.create_task(answer())
        assert b"answer" in await shell.types("ask", "-t", "mallory", "-m", "well?")


async def test_names_and_errors_of_a_hostile_relay_obey_nothing(tmp_path: Path) -> None:
    async with mallory_and_bobby(tmp_path) as (mallory, shell, _):
        relay_id = load_profile(replace(mallory, agent="bobby")).relay_id

        def lists(link: RelayLink, event: ClientFrame) -> bytes | None:
            if isinstance(event, ListUsers):
                link.send([Users(event.id, [UserRow("eve" + ALL, online=True)], more=False)])
            return None

        def refuses(link: RelayLink, event: ClientFrame) -> bytes | None:
            if not isinstance(event, Prove):
                link.send([Refused(event.id, "denied" + ALL, "the reason " + ALL, 0)])  # type: ignore[union-attr]
            return None

        async with hostile(relay_id, lists) as evil:
            for flags in ([], ["--json"], ["--all"]):
                assert b"eve" in await shell.types("users", *flags, "--server", evil)
        async with hostile(relay_id, refuses) as evil:
            for flags in ([], ["--json"]):
                assert b"the reason" in await shell.types("users", *flags, "--server", evil, code=5)
            await shell.types("doctor", "--server", evil)  # which logs in, and asks nothing that is refused


async def test_what_a_caller_typed_is_not_obeyed_when_it_comes_back_as_an_error(tmp_path: Path) -> None:
    typed = ALL.replace("\x00", "")
    async with mallory_and_bobby(tmp_path) as (_, shell, _url):
        await shell.types("send", "-t", typed, "-m", "x", code=2)
        await shell.types("send", "-t", "mallory", "-m", typed, code=2)
        await shell.types(typed, code=2)
        await shell.types("send", f"--{typed}", code=2)
        await shell.types("send", "-t", "mallory", "--file", typed, code=2)
        await shell.types("users", "--agent", typed, code=2)
        await shell.types("users", "--server", typed, code=2)
        await shell.types("users", "--server", f"ws://localhost:1/{urllib.parse.quote(typed)}", code=75)
        await shell.types("listen", "--exec", f"'{typed}", code=2)
        await shell.types("read", typed, code=2)


async def test_the_relays_own_output_obeys_nothing(tmp_path: Path) -> None:
    port = await free()

    async def attack(process: asyncio.subprocess.Process) -> None:
        async def answers() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually(answers)
        for payload in ESCAPES:
            await _post(port, f"GET /{payload} HTTP/1.1\r\nHost: {payload}\r\nOrigin: {payload}\r\n\r\n")
            await _post(port, f"{payload}\r\n\r\n")
        async with Peer(f"ws://127.0.0.1:{port}/ws", "mallory") as peer:
            peer.raw(encode_frames([Register("eve" + ALL, ALL, bytes(32), bytes(16), bytes(64), b"", invite=ALL)]))
            peer.raw(ALL.encode())
        process.terminate()

    arguments = ["--port", str(port), "--db-path", str(tmp_path / "data")]
    code, output = await at_terminal("aimessage-server", *arguments, meanwhile=attack)
    assert code == 0
    assert str(port).encode() in output
    assert obeyed(output) == []


@pytest.mark.parametrize("option", ["--store", "--db-path", "--host", "--tls-cert", "--config", "--wobble"])
async def test_what_an_operator_pasted_is_not_obeyed_when_it_comes_back(tmp_path: Path, option: str) -> None:
    typed = ALL.replace("\x00", "")
    code, output = await at_terminal("aimessage-server", "--port", "0", option, "/proc/nowhere/" + typed)

    assert code != 0
    assert obeyed(output) == []


async def _post(port: int, request: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    with contextlib.suppress(OSError):
        await asyncio.wait_for(reader.read(), 20)
    writer.close()
