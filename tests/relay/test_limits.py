"""The token bucket of one link."""

from datetime import UTC, datetime

import pytest

from aimessage.relay.limits import BOUNDS, FairWindow, LinkBucket, Window, block_of
from aimessage.stores.local import LocalBudgets


class Watch:
    """A clock that a test winds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """Never asked here."""
        return datetime(2026, 11, 23, tzinfo=UTC)

    def monotonic(self) -> float:
        """Return the wound time."""
        return self.seconds


def test_a_burst_is_twice_the_rate_and_then_the_rate_holds() -> None:
    watch = Watch()
    bucket = LinkBucket(10, watch)
    assert [bucket.take() for _ in range(20)] == [0.0] * 20
    assert 0 < bucket.take() <= 0.1

    watch.seconds = 1.0
    assert [bucket.take() for _ in range(10)] == [0.0] * 10
    assert bucket.take() > 0


def test_a_rate_of_zero_is_no_limit() -> None:
    bucket = LinkBucket(0, Watch())
    assert {bucket.take() for _ in range(1_000)} == {0.0}


async def test_a_window_has_no_burst_above_its_limit() -> None:
    watch = Watch()
    window = Window("w", 6, 600.0, LocalBudgets(watch))
    taken: list[float] = []
    while watch.seconds < 6_000:
        if await window.take("alice") == 0.0:
            taken.append(watch.seconds)
        watch.seconds += 5.0

    assert max(sum(at <= other < at + 600 for other in taken) for at in taken) == 6
    assert len(taken) >= 54
    assert await window.take("bobby") == 0.0


async def test_who_waits_as_long_as_a_window_says_gets_through() -> None:
    watch = Watch()
    window = Window("w", 1, 60.0, LocalBudgets(watch))
    assert await window.take("alice") == 0.0
    watch.seconds += await window.take("alice")

    assert await window.take("alice") == 0.0


async def test_a_window_remembers_a_bounded_number_of_keys() -> None:
    window = Window("w", 1, 60.0, LocalBudgets(Watch()))
    for value in range(BOUNDS.counted_keys + 1):
        await window.take(str(value))

    assert await window.take("0") == 0.0
    assert await window.take(str(BOUNDS.counted_keys)) > 0


@pytest.mark.parametrize("relays", [1, 2, 3])
def test_relays_keep_the_rate_of_all_of_them_together(relays: int) -> None:
    watch = Watch()
    windows = [FairWindow(100, watch) for _ in range(relays)]
    for window in windows:
        window.share_with(relays)
    taken = 0
    while watch.seconds < 10:
        taken += sum(windows[at % relays].take(f"10.0.0.{at}") == 0.0 for at in range(12))
        watch.seconds += 0.01

    assert 0.9 * 100 * 10 <= taken <= 1.1 * 100 * 10


def test_the_whole_relay_keeps_its_rate_in_every_second_also_at_the_start() -> None:
    watch = Watch()
    window = FairWindow(100, watch)
    taken: list[float] = []
    while watch.seconds < 5:
        taken += [watch.seconds for address in ("a", "b", "c") if window.take(address) == 0.0]
        watch.seconds += 0.003

    assert max(sum(at <= other < at + 1 for other in taken) for at in taken) <= 100
    assert len(taken) > 400


def test_an_address_that_floods_leaves_room_for_one_that_comes_later() -> None:
    watch = Watch()
    window = FairWindow(100, watch)
    alone = sum(window.take("flood") == 0.0 for _ in range(1_000))
    quiet = sum(window.take("quiet") == 0.0 for _ in range(10))

    assert (alone, quiet) == (90, 10)
    watch.seconds += 2
    assert [window.take(address) for address in ("flood", "quiet")] == [0.0, 0.0]
    assert sum(window.take("flood") == 0.0 for _ in range(1_000)) == 44


def test_addresses_are_counted_by_what_one_host_can_have() -> None:
    assert block_of("2001:db8::1") == block_of("2001:db8::ffff") != block_of("2001:db8:0:1::1")
    assert block_of("::ffff:192.0.2.1") == block_of("192.0.2.1") != block_of("192.0.2.2")
