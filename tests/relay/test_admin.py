"""The operator's door: who may open it, what it answers, and that it leaves nothing behind."""

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from aimessage.errors import BadValue, ConfigInvalid, RelayUnavailable, Unsupported
from aimessage.relay.admin import Handler, OperatorLine, dial, door_path, operator_door
from aimessage.relay.limits import BOUNDS
from support.relay import running_relay
from support.stores import names_in


@asynccontextmanager
async def door(directory: Path, **requests: Handler) -> AsyncIterator[None]:
    """A door alone, with a task group of its own."""
    async with asyncio.TaskGroup() as tasks:
        owned: list[asyncio.Task[None]] = []
        async with operator_door(directory, requests, lambda work: owned.append(tasks.create_task(work))):
            yield
        for task in owned:
            task.cancel()


async def echo(request: Mapping[str, object], _: AsyncExitStack) -> Mapping[str, object]:
    return {"heard": request.get("word")}


def dialled(directory: Path) -> OperatorLine:
    line = dial(directory)
    assert line is not None
    return line


async def asked(directory: Path, do: str, **arguments: object) -> dict[str, object]:
    def ask() -> dict[str, object]:
        with dialled(directory) as line:
            return line.ask(do, **arguments)

    return await asyncio.to_thread(ask)


async def test_a_request_is_answered_line_by_line(tmp_path: Path) -> None:
    async with door(tmp_path, echo=echo):

        def talk() -> list[object]:
            with dialled(tmp_path) as line:
                return [line.ask("echo", word=word)["heard"] for word in ("one", "two", "drei \u00e4")]

        assert await asyncio.to_thread(talk) == ["one", "two", "drei \u00e4"]


async def test_an_error_comes_back_as_it_was_with_its_hint(tmp_path: Path) -> None:
    async def refuse(_: Mapping[str, object], __: AsyncExitStack) -> Mapping[str, object]:
        raise RelayUnavailable("not now", hint="later")

    async with door(tmp_path, refuse=refuse):
        with pytest.raises(RelayUnavailable, match="not now") as refusal:
            await asked(tmp_path, "refuse")
        with pytest.raises(Unsupported):
            await asked(tmp_path, "what the next version can do")

    assert refusal.value.hint == "later"


@pytest.mark.parametrize("line", [b"not json\n", b"[1]\n", b'"do"\n', b"[" * 50_000 + b"\n", b"\xff\xfe\n"])
async def test_what_is_no_request_is_refused_and_the_line_stays_up(tmp_path: Path, line: bytes) -> None:
    async with door(tmp_path, echo=echo):
        reader, writer = await asyncio.open_unix_connection(str(door_path(tmp_path)))
        writer.write(line)
        assert json.loads(await reader.readline())["error"] == BadValue.code
        writer.write(b'{"do": "echo", "word": 1}\n')
        assert json.loads(await reader.readline()) == {"answer": {"heard": 1}}
        writer.close()


async def test_a_line_without_end_is_cut_off(tmp_path: Path) -> None:
    async with door(tmp_path, echo=echo):
        reader, writer = await asyncio.open_unix_connection(str(door_path(tmp_path)))
        writer.write(b"x" * (4 * BOUNDS.operator_request_bytes))
        with suppress(ConnectionError):  # what was not read is thrown away with the connection
            assert await reader.read() == b""
        writer.close()
        assert (await asked(tmp_path, "echo", word="still here"))["heard"] == "still here"


async def test_an_answer_is_bounded_too(tmp_path: Path) -> None:
    async def flood(_: Mapping[str, object], __: AsyncExitStack) -> Mapping[str, object]:
        return {"much": "x" * BOUNDS.operator_answer_bytes}

    async with door(tmp_path, flood=flood):
        with pytest.raises(BadValue, match="too large"):
            await asked(tmp_path, "flood")


async def test_only_so_many_may_stand_at_the_door(tmp_path: Path) -> None:
    async with door(tmp_path, echo=echo):
        lines = [dialled(tmp_path) for _ in range(BOUNDS.operator_links)]
        for line in lines:
            await asyncio.to_thread(line.ask, "echo")
        with pytest.raises(RelayUnavailable):
            await asked(tmp_path, "echo")
        for line in lines:
            line.close()
        async with asyncio.timeout(60):
            while True:
                try:
                    await asked(tmp_path, "echo")
                    break
                except RelayUnavailable:
                    await asyncio.sleep(0.01)


async def test_what_a_request_holds_is_let_go_when_its_connection_ends(tmp_path: Path) -> None:
    let_go = asyncio.Event()

    async def hold(_: Mapping[str, object], held: AsyncExitStack) -> Mapping[str, object]:
        held.callback(let_go.set)
        return {}

    async with door(tmp_path, hold=hold):
        line = dialled(tmp_path)
        await asyncio.to_thread(line.ask, "hold")
        assert not let_go.is_set()
        line.close()
        async with asyncio.timeout(60):
            await let_go.wait()


async def test_the_door_is_for_its_owner_alone_and_goes_with_the_relay(tmp_path: Path) -> None:
    path = door_path(tmp_path)
    path.parent.mkdir(mode=0o755)
    path.parent.chmod(0o777)
    async with running_relay(tmp_path, store="rocksdb"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (await asked(tmp_path, "snapshot")).keys() == {"name"}

    assert not path.exists()
    assert dial(tmp_path) is None


async def test_the_socket_of_a_relay_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = door_path(tmp_path)
    path.parent.mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert dial(tmp_path) is None

    async with door(tmp_path, echo=echo):
        assert await asked(tmp_path, "echo", word=1) == {"heard": 1}


async def test_a_door_where_somebody_answers_and_a_file_of_that_name_are_left_alone(tmp_path: Path) -> None:
    async with door(tmp_path, echo=echo):
        with pytest.raises(ConfigInvalid, match="another relay answers"):
            async with operator_door(tmp_path, {}, lambda work: work.close()):
                pass
        assert await asked(tmp_path, "echo") == {"heard": None}
    door_path(tmp_path).write_text("a letter")
    with pytest.raises(ConfigInvalid, match="not a socket"):
        async with operator_door(tmp_path, {}, lambda work: work.close()):
            pass
    assert door_path(tmp_path).read_text() == "a letter"


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)

    async with door(deep, echo=echo):
        assert await asked(deep, "echo", word="far") == {"heard": "far"}

    assert not door_path(deep).exists()


async def test_a_memory_relay_has_no_door(tmp_path: Path) -> None:
    async with running_relay(tmp_path):
        assert dial(tmp_path) is None
        assert names_in(tmp_path) == []
