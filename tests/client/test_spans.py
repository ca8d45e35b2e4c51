"""Runs of numbers and ids: exactly what was given, in as few pieces as can be."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aimessage.client.spans import spans, spans_of_ids
from aimessage.types import MessageId


@given(st.sets(st.integers(0, 60) | st.integers((1 << 63) - 3, 1 << 63)))
def test_the_spans_hold_exactly_the_numbers_and_do_not_touch(numbers: set[int]) -> None:
    found = spans(numbers)
    assert [number for first, last in found for number in range(first, last + 1)] == sorted(numbers)
    assert all(later > last + 1 for (_, last), (later, _) in pairwise(found))


def test_a_number_that_comes_twice_is_in_one_span() -> None:
    assert spans([3, 1, 2, 2, 7]) == [(1, 3), (7, 7)]


@given(st.sets(st.integers(0, (1 << 128) - 1) | st.integers((1 << 64) - 2, (1 << 64) + 2)))
def test_ids_count_on_as_numbers_do(numbers: set[int]) -> None:
    ids = [MessageId(number.to_bytes(16, "big")) for number in numbers]
    as_numbers = [(int.from_bytes(first, "big"), int.from_bytes(last, "big")) for first, last in spans_of_ids(ids)]
    assert as_numbers == spans(numbers)
