"""Bodies: padded, append-only, bounded."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.e2ee.bodies import (
    BATCH_BYTES,
    BODY_BYTES,
    MOST_PARTS,
    Body,
    Part,
    Receipts,
    batch_of,
    decode_body,
    encode_body,
    pad,
    part_bytes,
    parts_of,
    spare_bytes,
    unpad,
)
from aimessage.e2ee.reports import decode_receipts, encode_receipts, receipts_within
from aimessage.errors import MalformedOctets, TooLarge
from aimessage.types import MessageId

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


@given(st.integers(0, 5000), st.lists(st.sampled_from([1, 2, 4]), min_size=64, max_size=64))
def test_receipts_that_fit_into_the_padding_make_no_body_longer(length: int, fates: list[int]) -> None:
    body = msgspec.structs.replace(HELLO, text="x" * length)
    ids = [MessageId(number.to_bytes(16, "big")) for number in range(receipts_within(spare_bytes(body)))]
    of_fates = {Receipts(fate): [each for each, its in zip(ids, fates, strict=False) if its == fate] for fate in fates}

    taking = msgspec.structs.replace(body, report=encode_receipts(of_fates))

    assert len(ids) <= 64
    if ids:
        assert len(encode_body(taking)) == len(encode_body(body))
    assert sorted(each for _, told in decode_receipts(taking.report) for each in told) == ids


def test_that_somebody_waits_is_no_fate() -> None:
    report = msgspec.msgpack.encode([(8, [bytes(16)]), (9, [bytes(16)]), (1, [bytes(16)])])
    assert decode_receipts(report) == [(Receipts.DELIVERED, [bytes(16)])]


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


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(st.lists(TEXTS, min_size=1, max_size=MOST_PARTS))
def test_a_batch_comes_back_as_its_messages(texts: list[str]) -> None:
    messages = [
        (MessageId(number.to_bytes(16, "big")), msgspec.structs.replace(HELLO, text=text, sequence=number))
        for number, text in enumerate(texts, start=1)
    ]

    batch = batch_of(messages)

    assert parts_of(decode_body(encode_body(batch))) == messages
    assert len(msgspec.msgpack.encode(batch)) <= 256 + sum(part_bytes(body) for _, body in messages)


def test_the_largest_batch_fits_with_a_few_receipts() -> None:
    most = (1 << 62) - 1
    frame = part_bytes(Body("text", b"", 1, 1))
    one = Body("text", bytes(16), most, most, "", "", "x", bytes(16), most, most, receipts=most)
    text = "\N{CJK UNIFIED IDEOGRAPH-4E00}" * ((BATCH_BYTES // MOST_PARTS - frame - 1) // 3)
    messages = [(MessageId(bytes(16)), msgspec.structs.replace(one, text=text))] * MOST_PARTS
    assert BATCH_BYTES * 0.98 < sum(part_bytes(body) for _, body in messages) <= BATCH_BYTES
    report = encode_receipts({Receipts.DELIVERED: [MessageId(bytes(16))] * 64})
    assert len(encode_body(msgspec.structs.replace(batch_of(messages), report=report))) <= BODY_BYTES


MESSAGE = Part(bytes(16), HELLO)


@pytest.mark.parametrize(
    "body",
    [
        Body("batch", bytes(16), 0, 5),
        Body("text", bytes(16), 1, 5, text="hello", parts=(MESSAGE,)),
        Body("batch", bytes(16), 0, 5, parts=(MESSAGE,) * (MOST_PARTS + 1)),
        Body("batch", bytes(16), 0, 5, parts=(Part(bytes(15), HELLO),)),
        Body("batch", bytes(16), 0, 5, parts=(Part(bytes(16), Body("receipt", b"", 0, 5)),)),
        Body("batch", bytes(16), 0, 5, parts=(Part(bytes(16), Body("batch", b"", 0, 5, parts=(MESSAGE,))),)),
        Body("batch", bytes(16), 0, 5, parts=(Part(bytes(16), Body("text", b"", 1, 5, parts=(MESSAGE,))),)),
        Body("batch", bytes(16), 0, 5, parts=(Part(bytes(16), Body("text", b"", 1, 5, report=b"x")),)),
        Body("batch", bytes(16), 0, 5, parts=(MESSAGE, Part(bytes(16), Body("text", b"", -1, 5)))),
    ],
)
def test_a_batch_of_anything_but_messages_is_refused(body: Body) -> None:
    with pytest.raises(MalformedOctets):
        decode_body(encode_body(body))


def test_a_batch_is_no_control_mail() -> None:
    assert not batch_of([(MessageId(bytes(16)), HELLO)]).is_control
