"""The token bucket of one link."""

from datetime import UTC, datetime

from aimessage.relay.limits import BOUNDS, FairWindow, LinkBucket, Windows, block_of


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


def test_a_window_has_no_burst_above_its_limit() -> None:
    watch = Watch()
    windows = Windows(6, 600.0, watch)
    taken: list[float] = []
    while watch.seconds < 6_000:
        if windows.take("alice") == 0.0:
            taken.append(watch.seconds)
        watch.seconds += 5.0

    assert max(sum(at <= other < at + 600 for other in taken) for at in taken) == 6
    assert len(taken) >= 54
    assert windows.take("bobby") == 0.0


def test_who_waits_as_long_as_a_window_says_gets_through() -> None:
    watch = Watch()
    windows = Windows(1, 60.0, watch)
    assert windows.take("alice") == 0.0
    watch.seconds += windows.take("alice")

    assert windows.take("alice") == 0.0


def test_a_window_remembers_a_bounded_number_of_keys() -> None:
    windows = Windows(1, 60.0, Watch())
    for value in range(BOUNDS.counted_keys + 1):
        windows.take(str(value))

    assert windows.take("0") == 0.0
    assert windows.take(str(BOUNDS.counted_keys)) > 0


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
