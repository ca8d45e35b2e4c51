"""What the machine takes for the way alone: the same hops and syncs between processes, and nothing else on it.

python -m benchmarks.hops tcp | conversation | picows     prints the figures of one of them
"""

import asyncio
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_connect, ws_create_server

_ROUNDS = 1_000
_MESSAGE = bytes(421)  # about what a body of 256 B is on its way
_LINKS = 50
_WINDOW = 64  # of each link, not yet back
_SECONDS = 2.0
_PATIENCE_SECONDS = 60.0  # for the other end; whoever waits longer waits for somebody who has ended

_fork = multiprocessing.get_context("fork")  # before there is a loop or a thread


def tcp() -> Iterator[float]:
    """Yield the median milliseconds there and back between two processes, each on a core of its own if there are two.

    Two that share a core wait for no other to wake, and take a fifteenth of it: no agents live like that.
    """
    with _listening() as listener, _other(_echo, listener, _cores()[-1]), _dialled(listener) as link:
        os.sched_setaffinity(0, _cores()[:1])
        yield _medians([_there_and_back(link) for _ in range(_ROUNDS)])[0]


def conversation() -> Iterator[float]:
    """Yield the median milliseconds, and those at 99 %, of a message and its answer between two through a third.

    Each of the three writes and syncs a file where an agent or a relay has to: six syncs, four hops.
    """
    with _listening() as listener, ExitStack() as stack, tempfile.TemporaryDirectory() as directory:
        sync = _syncing(Path(directory) / "near")
        stack.enter_context(_other(_between, listener, Path(directory) / "between"))
        link = stack.enter_context(_dialled(listener))
        stack.enter_context(_other(_answering, listener, Path(directory) / "far"))
        taken = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            sync()
            _there_and_back(link)
            sync()
            taken.append((time.perf_counter() - began) * 1000)
        yield from _medians(taken)


def picows() -> Iterator[float]:
    """Yield the median milliseconds there and back through an empty WebSocket server, and what it echoes in a second.

    The second is of as many busy links, on one core, as the relay's first figure has. Both cores are full then: a load
    that were lighter than ours would find a little more.
    """
    with _listening() as listener, _other(_echo_frames, listener, _cores()[0]):
        os.sched_setaffinity(0, _cores()[1:] or _cores())
        yield from uvloop.run(_load(listener.getsockname()[1]))


def _medians(taken: list[float]) -> tuple[float, float]:
    taken.sort()
    return taken[len(taken) // 2], taken[len(taken) * 99 // 100]


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


@contextmanager
def _listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=_LINKS) as listener:
        listener.settimeout(_PATIENCE_SECONDS)
        yield listener


@contextmanager
def _other(work: Callable[..., None], *args: object) -> Iterator[None]:
    process = _fork.Process(target=work, args=args, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextmanager
def _dialled(listener: socket.socket) -> Iterator[socket.socket]:
    with closing(socket.create_connection(listener.getsockname())) as link:
        yield _prompt(link)


def _prompt(link: socket.socket) -> socket.socket:
    link.settimeout(_PATIENCE_SECONDS)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def _syncing(path: Path) -> Callable[[], None]:
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def sync() -> None:
        os.write(file, bytes(4096))
        os.fdatasync(file)

    return sync


def _received(link: socket.socket) -> bool:
    left = len(_MESSAGE)
    while left and (piece := link.recv(left)):
        left -= len(piece)
    return not left


def _there_and_back(link: socket.socket) -> float:
    began = time.perf_counter()
    link.sendall(_MESSAGE)
    if not _received(link):
        raise SystemExit("the other end is gone")
    return (time.perf_counter() - began) * 1000


def _echo(listener: socket.socket, core: int) -> None:
    os.sched_setaffinity(0, [core])
    link = _prompt(listener.accept()[0])
    while _received(link):
        link.sendall(_MESSAGE)


def _between(listener: socket.socket, path: Path) -> None:
    sync = _syncing(path)
    near, far = (_prompt(listener.accept()[0]) for _ in range(2))
    while _received(near):
        sync()
        _there_and_back(far)
        sync()
        near.sendall(_MESSAGE)


def _answering(listener: socket.socket, path: Path) -> None:
    sync = _syncing(path)
    with _dialled(listener) as link:
        while _received(link):
            sync()  # what came is kept
            sync()  # and so is the answer, before it goes
            link.sendall(_MESSAGE)


class _EchoListener(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(WSMsgType.BINARY, frame.get_payload_as_bytes())


class _Link(WSListener):
    """Has *window* messages under way until it is over."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        self.back = 0
        self.is_over = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        for _ in range(self.window):
            transport.send(WSMsgType.BINARY, _MESSAGE)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.back += 1
        if not self.is_over:
            transport.send(WSMsgType.BINARY, _MESSAGE)


def _echo_frames(listener: socket.socket, core: int) -> None:
    os.sched_setaffinity(0, [core])

    async def serve() -> None:
        def accept(_: WSUpgradeRequest) -> WSListener:
            return _EchoListener()

        parent = os.getppid()
        await ws_create_server(accept, sock=listener)
        while os.getppid() == parent:  # noqa: ASYNC110 - an orphan is told by nobody
            await asyncio.sleep(1)

    uvloop.run(serve())


async def _load(port: int) -> tuple[float, float]:
    url = f"ws://127.0.0.1:{port}/"
    alone = _Link(1)
    transport, _ = await ws_connect(lambda: alone, url)
    await asyncio.sleep(_SECONDS / 2)
    alone.is_over = True
    round_trip_ms = _SECONDS / 2 / alone.back * 1000
    transport.disconnect()
    links = [_Link(_WINDOW) for _ in range(_LINKS)]
    for link in links:
        await ws_connect(lambda link=link: link, url)
    before, began = sum(link.back for link in links), time.perf_counter()
    await asyncio.sleep(_SECONDS)
    return round_trip_ms, (sum(link.back for link in links) - before) / (time.perf_counter() - began)


if __name__ == "__main__":
    for figure in {"tcp": tcp, "conversation": conversation, "picows": picows}[sys.argv[1]]():
        sys.stdout.write(f"{figure}\n")
