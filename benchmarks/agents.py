"""End to end through the SDK: sealed by one process, carried by a relay, opened, committed and shown by another."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from aimessage.client import Settings, connect, register
from benchmarks.figures import Sample
from benchmarks.floors import COMMIT, CONVERSATION, CONVERSATION_MOST, ECHO
from support.commands import Relay, running_relay

__all__ = ["NO_QUOTAS", "backlog", "enrol", "flowing", "pingpong", "sessions", "throughput"]

_BODY = "x" * 256
_IN_FLIGHT = 256
NO_QUOTAS = ("--mailbox-messages", "0", "--mailbox-bytes", "0", "--mailbox-sender-share", "0")


def pingpong(directory: Path, count: int = 400) -> Iterator[Sample]:
    """One message there and one back, 256 B: both vaults and the relay durable at every step."""
    with _relay(directory) as relay:
        enrol(directory, relay, "alice", "bobby")
        with _worker("echo", directory, relay, "bobby", count):
            taken = asyncio.run(_ping(directory, relay, count))
    taken.sort()
    yield Sample("encrypted ping-pong, p50", taken[len(taken) // 2], "ms", CONVERSATION, bar=2)
    yield Sample("encrypted ping-pong, p99", taken[len(taken) * 99 // 100], "ms", CONVERSATION_MOST, bar=4)


async def _ping(directory: Path, relay: Relay, count: int) -> list[float]:
    taken = []
    async with connect(_settings(directory, relay, "alice")) as me:
        answers = me.listen()
        await me.send("bobby", _BODY)
        await anext(answers)
        for _ in range(count - 1):
            began = time.perf_counter()
            await me.send("bobby", _BODY)
            await anext(answers)
            taken.append((time.perf_counter() - began) * 1000)
        await answers.aclose()
    return taken


def throughput(directory: Path, pairs: int, count: int, bar: float, role: str = "send") -> Iterator[Sample]:
    """*pairs* senders and as many recipients, *count* messages in all.

    In the *role* `send`, each sender has up to 256 calls of `send` under way; `send_all` says it all in one call.
    """
    senders = [f"sender-{at}" for at in range(pairs)]
    recipients = [f"recipient-{at}" for at in range(pairs)]
    each = count // pairs
    with _relay(directory) as relay:
        enrol(directory, relay, *senders, *recipients)
        with _worker("receive", directory, relay, ",".join(recipients), each) as receiving:
            _expect(receiving, "ready")
            with _worker(role, directory, relay, ",".join(senders), each) as sending:
                _expect(sending, "ready")
                began = time.perf_counter()
                _expect(receiving, "done")
                taken = time.perf_counter() - began
    name = ("one pair" if pairs == 1 else f"{pairs} pairs") + (" by send_all" if role == "send_all" else "")
    yield Sample(f"encrypted throughput, {name}", each * pairs / taken, "msg/s", ECHO, bar=bar)


def flowing(directory: Path, relay: Relay, count: int) -> float:
    """Return how many messages a second went from sender-0 to recipient-0, until *count* were shown."""
    with _worker("receive", directory, relay, "recipient-0", count) as receiving:
        _expect(receiving, "ready")
        with _worker("send", directory, relay, "sender-0", count) as sending:
            _expect(sending, "ready")
            began = time.perf_counter()
            _expect(receiving, "done")
            return count / (time.perf_counter() - began)


def backlog(directory: Path, count: int = 10_000) -> Iterator[Sample]:
    """What came while the agent was away: fetched, opened and committed, and everything shown."""
    with _relay(directory) as relay:
        enrol(directory, relay, "sender-0", "recipient-0")
        with (
            _worker("greet", directory, relay, "recipient-0", 1),
            _worker("send", directory, relay, "sender-0", count) as sending,
        ):
            _expect(sending, "done")
        started = time.perf_counter()
        with _worker("fetch", directory, relay, "recipient-0", count) as receiving:
            _expect(receiving, "ready")
            began = time.perf_counter()
            _expect(receiving, "done")
            ended = time.perf_counter()
    yield Sample(f"backlog of {count} to a returning agent", count / (ended - began), "msg/s", ECHO, bar=10_000)
    yield Sample("the same, with the start of its process", count / (ended - started), "msg/s", ECHO)


def sessions(directory: Path, count: int = 30) -> Iterator[Sample]:
    """The first message to a peer that was never written to, from an agent whose link is open."""
    peers = [f"peer-{at}" for at in range(count)]
    with _relay(directory) as relay:
        enrol(directory, relay, "alice", *peers)
        taken = asyncio.run(_first_messages(directory, relay, peers))
    yield Sample("first message to a new peer", sorted(taken)[len(taken) // 2], "ms", COMMIT, bar=5)


async def _first_messages(directory: Path, relay: Relay, peers: list[str]) -> list[float]:
    taken = []
    async with connect(_settings(directory, relay, "alice")) as me:
        await me.users()
        for peer in peers:
            began = time.perf_counter()
            await me.send(peer, _BODY)
            taken.append((time.perf_counter() - began) * 1000)
    return taken


def _settings(directory: Path, relay: Relay, name: str) -> Settings:
    return Settings(directory / "home", name, relay.url)


@contextlib.contextmanager
def _relay(directory: Path) -> Iterator[Relay]:
    with running_relay(directory / "relay", *NO_QUOTAS) as relay:
        yield relay


def enrol(directory: Path, relay: Relay, *names: str) -> None:
    """Register each name on a machine of their own."""

    async def all_of_them() -> None:
        for name in names:
            await register(_settings(directory, relay, name), name)

    asyncio.run(all_of_them())


@contextlib.contextmanager
def _worker(role: str, directory: Path, relay: Relay, names: str, count: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "benchmarks.worker", role, str(directory / "home"), relay.url, names, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        if process.wait(timeout=120):
            raise RuntimeError(f"the {role} worker failed")


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line) == word:
            return
    raise RuntimeError(f"a worker ended before it was {word}")
