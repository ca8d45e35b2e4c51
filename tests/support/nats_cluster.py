"""Three NATS nodes on loopback, from the file that deployments use; each can be killed, frozen, cut off and restarted.

Each node reaches each other one through a gate of its own, so that one can be cut off and stay alive: it then does not
know that it is alone. What nodes tell one another of their addresses leads nowhere, so that no way leads past a gate.
"""

import asyncio
import http.client
import json
import os
import random
import signal
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["Gate", "NatsCluster", "Node", "running_cluster"]

BIN: Final = Path(sys.executable).parent
CONF: Final = Path(__file__).parents[2] / "deploy" / "cluster" / "nats.conf"
_NODES: Final = 3
_READY_SECONDS: Final = 60
_PORTS: Final = range(15_000, 30_000)  # below what Linux, macOS and the BSDs give to those who name none
_NOWHERE: Final = "127.0.0.1:1"
_PIECE: Final = 64 << 10


@contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    """Give *count* ports that are free, that no system gives away by itself, and that no other cluster here takes.

    So a killed node gets its own again. They follow one port that is held as long as they are used.
    """
    blocks = range(_PORTS.start, _PORTS.stop, count + 1)
    for start in random.sample(blocks, len(blocks)):
        with ExitStack() as guards:
            try:
                guards.enter_context(socket.socket()).bind(("127.0.0.1", start))
                for port in range(start + 1, start + 1 + count):
                    with socket.socket() as trial:
                        trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            yield list(range(start + 1, start + 1 + count))
            return
    raise OSError("there are not enough free ports")


@dataclass(eq=False)
class Gate:
    """The way from one node to another: open, or cut with everything that is on it."""

    target: int
    port: int = 0
    is_cut: bool = False
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until an end or a cut."""
        if self.is_cut:
            writer.close()
            return
        self._writers.add(writer)
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self._drop(writer)
            return
        self._writers.add(far)
        ways = [asyncio.create_task(_copy(reader, far)), asyncio.create_task(_copy(far_reader, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._drop(writer, far)

    def cut(self) -> None:
        """Break what is on the way, and let nothing through."""
        self.is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        """Let everything through again."""
        self.is_cut = False

    def _drop(self, *writers: asyncio.StreamWriter) -> None:
        for writer in writers:
            self._writers.discard(writer)
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()


@dataclass(eq=False)
class Node:
    """One server: its name, its ports, its directory, and the gates that lead out of it."""

    name: str
    client: int
    monitor: int
    route: int
    folder: Path
    conf: Path = CONF
    gates: dict[str, Gate] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients come."""
        return f"nats://127.0.0.1:{self.client}"

    @property
    def monitor_url(self) -> str:
        """Where its monitor answers."""
        return f"http://127.0.0.1:{self.monitor}"

    async def start(self) -> None:
        """Start it on what it holds."""
        routes = [f"nats-route://127.0.0.1:{gate.port}" for gate in self.gates.values()]
        place = {
            "NATS_NAME": self.name,
            "NATS_HOST": "127.0.0.1",
            "NATS_PORT": str(self.client),
            "NATS_MONITOR": f"127.0.0.1:{self.monitor}",
            "NATS_ROUTE": f"127.0.0.1:{self.route}",
            "NATS_ADVERTISE": _NOWHERE,
            "NATS_STORE": str(self.folder / self.name),
            **{f"NATS_ROUTE_{at}": route for at, route in enumerate([*routes, routes[0]], start=1)},
        }
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                BIN / "nats-server", "-c", self.conf, env={**os.environ, **place}, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        """End it at once, as a crash does."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def freeze(self) -> None:
        """Stop it where it stands: its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def page(self, path: str) -> dict[str, object]:
        """Return a page of its monitor; {} while it does not say 200."""
        return await asyncio.to_thread(_page, self.monitor_url + path)


def _page(url: str) -> dict[str, object]:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            found = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass
class NatsCluster:
    """All nodes."""

    nodes: list[Node]

    @property
    def urls(self) -> list[str]:
        """Where clients come."""
        return [node.url for node in self.nodes]

    @property
    def relay_flags(self) -> tuple[str, ...]:
        """What a relay on this cluster is started with."""
        store = ",".join(self.urls)
        monitors = [word for node in self.nodes for word in ("--nats-monitor", node.monitor_url)]
        return ("--store", store, "--replicas", str(len(self.nodes)), *monitors)

    def cut_off(self, node: Node) -> None:
        """Part *node* from the others, both ways; clients still reach it."""
        for gate in self._gates(node):
            gate.cut()

    def join_again(self, node: Node) -> None:
        """Undo `cut_off`."""
        for gate in self._gates(node):
            gate.mend()

    def _gates(self, node: Node) -> list[Gate]:
        inward = [other.gates[node.name] for other in self.nodes if other is not node]
        return [*node.gates.values(), *inward]

    async def healthy(self) -> None:
        """Return when every node says that it and its streams are well."""
        async with asyncio.timeout(_READY_SECONDS):
            for node in self.nodes:
                while (await node.page("/healthz")).get("status") != "ok":
                    assert node.process is not None
                    assert node.process.returncode is None, f"{node.name} has ended"
                    await asyncio.sleep(0.1)
            while not await self._leads_all():  # noqa: ASYNC110 - until then a stream of three copies finds no place
                await asyncio.sleep(0.1)

    async def agreed(self, stream: str) -> None:
        """Return when every node names one leader of *stream*, and most have written as far as it.

        A leader that was cut off answers of what it held until it hears of its successor: what is read before all
        name one may be old, and looks as if it had been lost. Not all are waited for: a former leader may stay behind
        for minutes ("Expected first catchup entry to be a snapshot" in its log, NATS 2.15.1), and takes no part then.
        """
        told: list[tuple[str, int] | None] = []
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not _most_agree(told):
                    await asyncio.sleep(0.1)
                    told = [_stream_of(await node.page("/jsz?accounts=1&streams=1"), stream) for node in self.nodes]
        except TimeoutError:
            raise AssertionError(f"the nodes tell of {stream}: {told}") from None

    async def _leads_all(self) -> bool:
        """Return whether every node names one leader, which hears from all of the others."""
        groups = [(await node.page("/jsz")).get("meta_cluster") for node in self.nodes]
        named = {group.get("leader") if isinstance(group, dict) else None for group in groups}
        if len(named) != 1:
            return False
        for node, group in zip(self.nodes, groups, strict=True):
            if isinstance(group, dict) and group.get("leader") == node.name:
                others = group.get("replicas") or []
                heard = [other for other in others if other.get("current") and not other.get("offline")]
                return len(heard) == len(self.nodes) - 1
        return False


def _most_agree(told: Sequence[tuple[str, int] | None]) -> bool:
    """Return whether all name one leader, and most have the last sequence that is furthest."""
    known = [each for each in told if each is not None]
    if len(known) < _NODES or len({leader for leader, _ in known}) != 1:
        return False
    last = [sequence for _, sequence in known]
    return 2 * last.count(max(last)) > _NODES


def _stream_of(page: Mapping[str, Any], name: str) -> tuple[str, int] | None:
    """Return the leader and the last sequence of a stream as one node's `/jsz` tells them; None if it knows neither."""
    for account in page.get("account_details") or []:
        for stream in account.get("stream_detail") or []:
            if stream["name"] == name and (leader := stream.get("cluster", {}).get("leader")):
                return leader, stream["state"]["last_seq"]
    return None


@asynccontextmanager
async def running_cluster(folder: Path, conf: Path = CONF) -> AsyncIterator[NatsCluster]:
    """Run three nodes with their streams under *folder*, which exists: healthy at first, gone at the end."""
    async with AsyncExitStack() as stack:
        ports = stack.enter_context(_free_ports(3 * _NODES))
        each = iter(ports)
        nodes = [Node(f"n{at}", next(each), next(each), next(each), folder, conf) for at in range(_NODES)]
        for node in nodes:
            for other in nodes:
                if other is not node:
                    gate = node.gates[other.name] = Gate(other.route)
                    server = await asyncio.start_server(gate.serve, "127.0.0.1", 0)
                    stack.callback(server.close)
                    gate.port = int(server.sockets[0].getsockname()[1])
        for node in nodes:
            stack.push_async_callback(node.kill)
            await node.start()
        cluster = NatsCluster(nodes)
        await cluster.healthy()
        yield cluster
