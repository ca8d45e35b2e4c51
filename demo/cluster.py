"""A whole cluster on this machine: three NATS nodes, two relays on them, and a load balancer in front.

Run it with `./start.sh cluster [aimessage-server options]`. Everything listens on loopback only, keeps its data under
DB_PATH (./data) in `cluster/`, and ends with this process; agents come to PORT (8080). Nothing is restarted by itself,
so that you can see what a fault does: kill any of the processes named on the screen, then send SIGHUP to this one, and
it starts again whatever has ended.
"""

import asyncio
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from balancer import HEAD_BYTES, Backend, Balancer
from children import Child

BIN = Path(sys.executable).parent
NATS_CONF = Path(__file__).parents[1] / "deploy" / "cluster" / "nats.conf"
NODES = ("nats-1", "nats-2", "nats-3")
RELAYS = ("relay-1", "relay-2")
START_SECONDS = 60
NEXT_STEPS = """
agents come to   {url}   and are sent to either relay

next, in another shell (the commands are in .venv/bin):
   aimessage register --agent alice-agent --username alice-agent --server {url}
   aimessage register --agent worker-1 --username worker-1 --server {url}
   aimessage --agent worker-1 listen &
   aimessage --agent alice-agent send --to worker-1 --message hello
a fault, and the way back:
   kill -9 {victim}       a NATS node; or any pid above
   kill -HUP {ours}      starts again what has ended
Ctrl-C stops all of it; data and logs stay in {folder}
"""


class ClusterFailed(Exception):
    """The cluster cannot run; the message is for the reader."""


def say(text: str) -> None:
    """Write one line to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def free_ports(count: int) -> list[int]:
    """Return loopback ports that were free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def answers(url: str) -> bool:
    """Return whether a page says 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  an address on loopback, made here
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


class Cluster:
    """All processes in *folder*, and the balancer on *port*; *relay_flags* go to both relays."""

    def __init__(self, folder: Path, port: int, relay_flags: Sequence[str]) -> None:
        self.folder = folder
        self.port = port
        ports = free_ports(3 * len(NODES) + len(RELAYS))  # all at once, so that none comes twice
        self._clients, self._monitors, self._routes = ports[:3], ports[3:6], ports[6:9]
        self.nodes = [self._node(at, name) for at, name in enumerate(NODES)]
        self.backends = [Backend(name, port) for name, port in zip(RELAYS, ports[9:], strict=True)]
        self.relays = [self._relay(backend, relay_flags) for backend in self.backends]

    def _node(self, at: int, name: str) -> Child:
        place = {
            "NATS_NAME": name,
            "NATS_HOST": "127.0.0.1",
            "NATS_PORT": str(self._clients[at]),
            "NATS_MONITOR": f"127.0.0.1:{self._monitors[at]}",
            "NATS_STORE": str(self.folder / name),
            "NATS_ROUTE": f"127.0.0.1:{self._routes[at]}",
            "NATS_ADVERTISE": f"127.0.0.1:{self._routes[at]}",
            **{f"NATS_ROUTE_{n}": f"nats-route://127.0.0.1:{port}" for n, port in enumerate(self._routes, start=1)},
        }
        return Child(name, (BIN / "nats-server", "-c", NATS_CONF), self.folder / f"{name}.log", say, place)

    def _relay(self, backend: Backend, flags: Sequence[str]) -> Child:
        store = ",".join(f"nats://127.0.0.1:{port}" for port in self._clients)
        monitors = [word for port in self._monitors for word in ("--nats-monitor", f"http://127.0.0.1:{port}")]
        words = (
            *(BIN / "aimessage-server", "--port", str(backend.port), "--db-path", self.folder / backend.name),
            *("--store", store, "--replicas", "3", *monitors, "--trusted-proxy", "127.0.0.1", *flags),
        )
        return Child(backend.name, words, self.folder / f"{backend.name}.log", say)

    async def run(self) -> None:
        """Start everything, carry connections, and stop everything at SIGINT or SIGTERM. Raises ClusterFailed."""
        loop, me, again = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
        assert me is not None  # noqa: S101  a coroutine runs in a task
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, me.cancel)
        loop.add_signal_handler(signal.SIGHUP, again.set)
        try:
            await self._start()
            await self._live(again)
        except asyncio.CancelledError:
            say("stopping")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, say, "   already stopping")
            await asyncio.gather(*(relay.stop() for relay in self.relays))  # first: they may still write while draining
            await asyncio.gather(*(node.stop() for node in self.nodes))

    async def _start(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        say("three NATS nodes, each write on disk before it is acknowledged:")
        for node in self.nodes:
            await node.start()
        for node, port in zip(self.nodes, self._monitors, strict=True):
            await self._until(node, f"http://127.0.0.1:{port}/healthz")
        say("two relays, which keep nothing themselves:")
        for relay, backend in zip(self.relays, self.backends, strict=True):  # in turn: the first one makes the streams
            await relay.start()
            await self._until(relay, f"http://127.0.0.1:{backend.port}/ready")

    async def _until(self, child: Child, url: str) -> None:
        """Return when *url* answers. Raises ClusterFailed: *child* has ended, or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while not await asyncio.to_thread(answers, url):
            if not child.running or time.monotonic() > deadline:
                raise ClusterFailed(f"{child.name} did not start: {child.last_words()} (all of it: {child.log})")
            await asyncio.sleep(0.1)

    async def _live(self, again: asyncio.Event) -> None:
        balancer = Balancer(self.backends, say)
        try:
            await asyncio.start_server(balancer.serve, "127.0.0.1", self.port, limit=HEAD_BYTES)
        except OSError as error:
            raise ClusterFailed(f"cannot listen on port {self.port}: {error.strerror}; choose one with PORT") from None
        url = f"ws://localhost:{self.port}"
        say(NEXT_STEPS.format(url=url, victim=self.nodes[0].pid, ours=os.getpid(), folder=self.folder))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(balancer.probe())
            for child in (*self.nodes, *self.relays):
                tasks.create_task(child.watch())
            while True:
                await again.wait()
                again.clear()
                say("starting again what has ended:")
                for child in (*self.nodes, *self.relays):
                    if not child.running:
                        await child.start()
                        tasks.create_task(child.watch())


def main() -> int:
    """Run the cluster until a signal; return the exit code."""
    folder = Path(os.environ.pop("DB_PATH", "") or "data").absolute() / "cluster"
    port = int(os.environ.pop("PORT", "") or 8080)
    try:
        asyncio.run(Cluster(folder, port, sys.argv[1:]).run())
    except ClusterFailed as error:
        sys.stderr.write(f"the cluster failed: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
