"""The relay by itself: many links at once, sealed bodies of 421 B, acked once they are on disk, delivered and acked.

The relay has one core to itself, the load the others.
"""

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Sample
from benchmarks.floors import ECHO
from support.commands import Relay, running_relay
from support.relay import Peer
from support.tls import Authority

__all__ = ["FLAGS", "idle", "relay", "rss_kib", "tls"]

FLAGS = (
    "--mailbox-messages", "0", "--mailbox-bytes", "0", "--mailbox-sender-share", "0",
    "--connections-per-address", "0", "--unauthenticated", "0", "--lookups", "0",
)  # fmt: skip


_FIRST = 50
_SPARE_DESCRIPTORS = 300  # of a relay and of us, beside the links


def relay(directory: Path, links: int, seconds: float, bar: float) -> Iterator[Sample]:
    """*links* busy links, half of them senders: how many messages a second are durably acked and delivered."""
    with running_relay(directory / "relay", *FLAGS) as running:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(running.process.pid, cores[:1])
        command = [sys.executable, "-m", "benchmarks.crowd", running.url, str(links), str(seconds)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores[1:] or cores),  # noqa: PLW1509 - no threads here
        ) as crowd:  # fmt: skip
            assert crowd.stderr is not None
            crowd.stderr.readline()  # everybody is connected
            before = _cpu_seconds(running)
            told, _ = crowd.communicate(timeout=seconds + 120)
        whole = _cpu_seconds(running)
    delivered, taken, cpu = map(float, told.split())
    yield Sample(f"relay, {links} busy links", delivered / taken, "msg/s", ECHO, bar=bar)
    yield Sample(f"relay's CPU at {links} busy links", (whole - before) / delivered * 1e6, "µs/msg")
    yield Sample(f"the load's own CPU at {links} links", cpu / delivered * 1e6, "µs/msg")


def tls(directory: Path, links: int = 50, seconds: float = 4) -> Iterator[Sample]:
    """The same load over TLS 1.3 and without it, one behind the other."""
    authority = Authority(directory)
    certificate = str(authority.issue("127.0.0.1", "localhost"))
    plain = ""
    for name, flags in (("plain", ()), ("TLS", ("--tls-cert", certificate, "--tls-key", certificate))):
        with running_relay(directory / name, *FLAGS, *flags) as running:
            scheme = "wss" if flags else "ws"
            command = [sys.executable, "-m", "benchmarks.crowd", f"{scheme}://127.0.0.1:{running.port}"]
            environ = os.environ | {"SSL_CERT_FILE": str(authority.ca_file)}
            done = subprocess.run([*command, str(links), str(seconds)], check=True, stdout=subprocess.PIPE, text=True,
                                  env=environ, timeout=seconds + 120)  # fmt: skip
        delivered, taken, _ = map(float, done.stdout.split())
        yield Sample(f"relay, {links} busy links, {name}", delivered / taken, "msg/s", plain or None)
        plain = f"relay, {links} busy links, {name}"


def _cpu_seconds(running: Relay) -> float:
    """What the relay has used, of the user's and the system's time."""
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(directory: Path, links: int = 10_000) -> Iterator[Sample]:
    """What one more link that is logged in, subscribed and silent costs the relay's memory; fewer *links* if we may not
    open so many."""
    links = min(links, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _SPARE_DESCRIPTORS)
    with running_relay(directory / "relay", *FLAGS) as running:
        yield Sample("idle connection", asyncio.run(_held_kib(running, links)), "KiB", bar=20)


async def _held_kib(running: Relay, links: int) -> float:
    url = running.url.replace("localhost", "127.0.0.1") + "/ws"
    secrets = [os.urandom(32) for _ in range(links + _FIRST)]
    for number, secret in enumerate(secrets):  # what an account costs is not a link's
        async with Peer(url, f"idle-{number}", secret) as peer:
            await peer.register()
    async with contextlib.AsyncExitStack() as stack:

        async def join(number: int) -> None:
            peer = await stack.enter_async_context(Peer(url, f"idle-{number}", secrets[number]))
            await peer.login()
            await peer.subscribe()

        for number in range(_FIRST):  # what the first ones cost is the relay's, not theirs
            await join(number)
        before = rss_kib(running)
        for number in range(_FIRST, links + _FIRST):
            await join(number)
        return (rss_kib(running) - before) / links


def rss_kib(running: Relay) -> float:
    """Return what of its memory the relay has in the machine's."""
    for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise RuntimeError("no figure for the relay's memory")
