"""Attacks of tests/endurance/hostile.py, a few each, on a real relay: it stays up, and gives back what they took."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from endurance.floods import bystanders, exhaust_descriptors, flood, hostile_relay
from support.commands import running_relay

MIB = 1 << 20
SHORT = ("--login-seconds", "1", "--stall-seconds", "0.5", "--heartbeat-seconds", "2")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        yield processes


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("malformed_frames", 300),
        ("random_handshakes", 300),
        ("slow_handshakes", 10),
        ("header_floods", 20),
        ("huge_lengths", 40),
        ("stalled_readers", 2),
        ("half_open", 10),
    ],
)
async def test_an_attack_leaves_no_socket_and_little_memory_behind(
    tmp_path: Path, pool: ProcessPoolExecutor, name: str, size: int
) -> None:
    async with hostile_relay(tmp_path, *SHORT) as (relay, watchers):
        found = await flood(relay, watchers, name, size, pool)

        assert relay.process.poll() is None
    assert found.ends.total() == size
    assert found.after.sockets == found.before.sockets
    assert found.growth_bytes < 10 * MIB
    assert found.delays != "none"


async def test_endless_fragments_are_closed_and_cost_less_than_5_mib_each(
    tmp_path: Path, pool: ProcessPoolExecutor
) -> None:
    with running_relay(tmp_path, *SHORT) as relay:
        async with bystanders(relay) as watchers:
            found = await flood(relay, watchers, "endless_fragments", 5, pool)

    assert found.ends == {"close 1009": 5}
    assert found.worst_bytes - found.before.rss_bytes < 5 * 5 * MIB


async def test_a_relay_without_a_descriptor_left_refuses_and_recovers(tmp_path: Path) -> None:
    async with hostile_relay(tmp_path, "--unauthenticated", "0") as (relay, watchers):
        found = await exhaust_descriptors(relay, watchers, 400)

        assert relay.process.poll() is None
    assert found.survived, found
