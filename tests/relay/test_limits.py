"""The token bucket of one link."""

from datetime import UTC, datetime

from aimessage.relay.limits import LinkBucket


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
