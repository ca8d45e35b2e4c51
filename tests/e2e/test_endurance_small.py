"""The endurance scripts, a few rounds each: the same code as at full size (see docs/endurance.md)."""

from pathlib import Path

import pytest

from endurance.aftermath import Aftermath
from endurance.cluster_faults import break_again_and_again
from endurance.disk import why_no_disk
from endurance.flip_bits import flip_everywhere
from endurance.full_disk import starve_again_and_again, why_no_small_disk
from endurance.hung_disk import hang_again_and_again
from endurance.kill_relay import kill_again_and_again
from endurance.power_cut import cut_again_and_again
from endurance.relay_claims import fetch_everything
from endurance.stateful_stores import run_histories
from endurance.strace import why_not_traceable
from endurance.truncate_wal import cut_everywhere
from endurance.wal_sync import send_traced
from support.nats_cluster import running_cluster


async def test_a_killed_relay_loses_doubles_and_reorders_nothing(tmp_path: Path) -> None:
    verdict = await kill_again_and_again(tmp_path, cycles=10, seed=1, load_seconds=0.3)

    assert verdict.clean, verdict
    assert verdict.acked > 1_000


@pytest.mark.skipif(bool(why_not_traceable()), reason=why_not_traceable())
async def test_each_ack_leaves_behind_the_sync_of_its_entry(tmp_path: Path) -> None:
    traced = await send_traced(tmp_path, acks=200)

    found = traced.judge()

    assert found.accepted == found.behind_their_sync == traced.acked >= 200, found.offenders
    assert traced.judge(without="fdatasync").behind_their_sync == 0


@pytest.mark.skipif(bool(why_not_traceable()), reason=why_not_traceable())
async def test_a_disk_that_hangs_holds_up_nobody_who_asks_nothing_of_it(tmp_path: Path) -> None:
    [hang] = await hang_again_and_again(tmp_path, cycles=1, seconds=8.0)

    assert hang.clean, hang


@pytest.mark.skipif(bool(why_no_disk()), reason=why_no_disk())
async def test_what_was_acked_is_there_after_a_power_cut(tmp_path: Path) -> None:
    try:
        outage = await cut_again_and_again(tmp_path, cycles=1, seed=1, size_bytes=200 << 20)
    except OSError as error:
        pytest.skip(str(error))

    assert outage.rig_works
    assert outage.verdict is not None
    assert outage.verdict.clean, outage.verdict


async def test_a_flipped_bit_is_never_a_silent_loss(tmp_path: Path) -> None:
    findings = await flip_everywhere(tmp_path, cycles=1, seed=3, letters=60, aimed=False)

    assert findings.bad == []
    assert findings.flips == 11


async def test_a_log_that_was_cut_short_is_told_with_the_mark(tmp_path: Path) -> None:
    cuts = await cut_everywhere(tmp_path, cycles=5, seed=1, letters=60)

    assert cuts.undetected == []
    assert cuts.detected == cuts.cuts == 5
    assert cuts.without[Aftermath.SILENT] > 0  # without the mark a cut goes unnoticed: that is what it is for


@pytest.mark.skipif(bool(why_no_small_disk()), reason=why_no_small_disk())
async def test_a_full_disk_costs_nothing_that_was_acked_and_is_survived(tmp_path: Path) -> None:
    try:
        found = await starve_again_and_again(tmp_path, cycles=1, seed=1)
    except OSError as error:
        pytest.skip(str(error))

    assert found.clean, found


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_random_histories_with_crashes_agree_with_the_model(store: str) -> None:
    counts = run_histories(store, cycles=15, steps=15, seed_number=1)

    assert counts["histories"] >= 15


async def test_a_cluster_with_a_node_killed_one_parted_and_a_relay_killed_loses_doubles_and_reorders_nothing(
    tmp_path: Path,
) -> None:
    report = await break_again_and_again(tmp_path, ["node killed", "node parted", "relay killed"], lasts=1.0)

    assert report.clean, report.verdict
    assert report.verdict is not None
    assert report.verdict.acked > 150


async def test_two_relays_serve_no_pair_twice_and_give_a_name_to_one(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        found = await fetch_everything(tmp_path, cluster, fetches=200, rounds=1)

    assert found.clean, found
