"""What counts on without a gap, as its two ends: rows of one commit lie together, and one statement finds them all."""

from collections.abc import Iterable

from aimessage.types import ID_BYTES, MessageId

__all__ = ["spans", "spans_of_ids"]


def spans(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the runs among *numbers*, each by its first and its last."""
    found: list[tuple[int, int]] = []
    first = last = None
    for number in sorted(numbers):
        if first is None or last is None:
            first = number
        elif number > last + 1:
            found.append((first, last))
            first = number
        last = number
    if first is not None and last is not None:
        found.append((first, last))
    return found


def spans_of_ids(ids: Iterable[MessageId]) -> list[tuple[bytes, bytes]]:
    """Return the runs among *ids*: between the two ends of one, no other id exists."""
    numbers = [int.from_bytes(message_id, "big") for message_id in ids]
    return [(first.to_bytes(ID_BYTES, "big"), last.to_bytes(ID_BYTES, "big")) for first, last in spans(numbers)]
