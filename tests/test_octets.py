"""Fixed layouts: every bound is checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.errors import MalformedOctets
from aimessage.octets import Reader, lp16, u8, u16, u32, u64


@given(st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(max_size=70), st.binary(max_size=9))
def test_fields_come_back_in_order(small: int, large: int, field: bytes, tail: bytes) -> None:
    reader = Reader(u8(small) + u64(large) + lp16(field) + tail)
    assert (reader.integer(1), reader.integer(8), reader.lp16()) == (small, large, field)
    assert reader.position == 11 + len(field)
    assert reader.rest() == tail
    reader.end()


@given(st.binary(max_size=20), st.integers(1, 40))
def test_nothing_is_read_past_the_end(octets: bytes, more: int) -> None:
    with pytest.raises(MalformedOctets):
        Reader(octets).take(len(octets) + more)


def test_bytes_behind_the_end_are_refused() -> None:
    reader = Reader(u16(1) + u32(2) + b"\x00")
    assert (reader.integer(2), reader.integer(4)) == (1, 2)
    with pytest.raises(MalformedOctets):
        reader.end()


def test_a_length_that_promises_too_much_is_refused() -> None:
    with pytest.raises(MalformedOctets):
        Reader(u16(5) + b"four").lp16()
