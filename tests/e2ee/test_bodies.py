"""Bodies: padded, append-only, bounded."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.e2ee.bodies import BODY_BYTES, Body, decode_body, encode_body, pad, unpad
from aimessage.errors import MalformedOctets, TooLarge

HELLO = Body("text", bytes(16), 1, 1_700_000_000_000, text="hello")


@given(st.binary(max_size=5000))
def test_padding_is_removed_as_it_was_added(octets: bytes) -> None:
    padded = pad(octets)
    assert unpad(padded) == octets
    assert len(padded) in (128, 256, 512) or len(padded) % 1024 == 0


def test_the_largest_body_fits_and_one_byte_more_does_not() -> None:
    assert len(pad(bytes(BODY_BYTES - 1))) == BODY_BYTES
    with pytest.raises(TooLarge):
        pad(bytes(BODY_BYTES))


@given(st.text(max_size=300), st.text(max_size=20), st.integers(0, 2**40), st.booleans())
def test_a_body_comes_back_as_it_was(text: str, thread: str, sequence: int, expects_reply: bool) -> None:
    body = Body("text", bytes(16), sequence, 5, text=text, thread=thread, expects_reply=expects_reply)
    assert decode_body(encode_body(body)) == body


def test_a_later_versions_fields_are_ignored_and_an_earlier_ones_default() -> None:
    later = msgspec.msgpack.encode([*msgspec.structs.astuple(HELLO), "a field of tomorrow"])
    assert decode_body(pad(later)) == HELLO
    earlier = msgspec.msgpack.encode(["text", bytes(16), 1, 5])
    assert decode_body(pad(earlier)) == Body("text", bytes(16), 1, 5)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_body_or_malformed(octets: bytes) -> None:
    try:
        decode_body(octets)
    except MalformedOctets:
        return
    assert unpad(octets)


@pytest.mark.parametrize(
    "body", [msgspec.structs.replace(HELLO, kind="surprise"), msgspec.structs.replace(HELLO, hops=-1)]
)
def test_unknown_kinds_and_negative_counts_are_refused(body: Body) -> None:
    with pytest.raises(MalformedOctets):
        decode_body(encode_body(body))


def test_control_mail_knows_itself() -> None:
    assert not HELLO.is_control
    assert msgspec.structs.replace(HELLO, kind="receipt").is_control
