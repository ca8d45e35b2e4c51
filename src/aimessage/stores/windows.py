"""Sliding windows: at most so many events in any so many seconds, never a burst above that, as a bucket has.

Moments are kept to a twentieth of the time, so a key costs at most 21 pairs of numbers. Nothing here keeps anything.
"""

__all__ = ["GRAINS", "Events", "count_one", "within"]

GRAINS = 20
Events = list[list[int]]
"""Of one key, oldest first: [grain, events in it]."""


def within(events: Events, now: float, *, limit: int, seconds: float) -> float:
    """Forget what is over; return 0.0 if one more event at *now* is within the limit, else the seconds until it is."""
    width = seconds / GRAINS
    grain = int(now / width)
    # What claims to come from later than now is of a clock that has been set back: it holds for one window at most.
    events[:] = [each for each in events if grain - GRAINS <= each[0] <= grain + GRAINS]
    if sum(count for _, count in events) < limit:
        return 0.0
    return max(width, (events[0][0] + GRAINS + 1) * width - now)


def count_one(events: Events, now: float, *, seconds: float) -> None:
    """Add one event."""
    grain = int(now / (seconds / GRAINS))
    if events and events[-1][0] == grain:
        events[-1][1] += 1
    else:
        events.append([grain, 1])
