"""A flipped bit, in whatever kind of message: refused, no trace of it, and the conversation goes on.

Every bit of whole messages, twenty of each kind: tests/endurance/core_flips.py.
"""

from random import Random

import pytest

from aimessage.e2ee.session import Envelope
from endurance.core_kinds import BODY, KINDS, bits_of, flips_that_pass

_FIXED_BITS = 74 * 8  # the part of the header that every kind has
_TAG_BITS = 16 * 8
_SAMPLE = 1_500


def sampled(envelope: Envelope) -> list[int]:
    """Every bit of the fixed part of the header and of the tag, and some of those between."""
    bits = bits_of(envelope)
    between = bits[_FIXED_BITS:-_TAG_BITS]
    return [
        *bits[:_FIXED_BITS],
        *Random(14).sample(between, min(_SAMPLE, len(between))),
        *bits[-_TAG_BITS:],
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_refused_and_leaves_no_trace(kind: str) -> None:
    sender, receiver, envelope = KINDS[kind](14)
    secrets = set(receiver.pair_secrets)
    assert flips_that_pass(receiver, envelope, sampled(envelope)) == []
    assert set(receiver.pair_secrets) == secrets
    assert receiver.open(envelope) == BODY
    assert receiver.open(sender.seal(b"the next")) == b"the next"
    assert sender.open(receiver.seal(b"an answer")) == b"an answer"


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_good_one_opens_even_if_the_flipped_one_never_comes(kind: str) -> None:
    sender, receiver, envelope = KINDS[kind](15)
    assert flips_that_pass(receiver, envelope, Random(15).sample(bits_of(envelope), 50)) == []
    assert receiver.open(sender.seal(b"the next")) == b"the next"
    assert sender.open(receiver.seal(b"an answer")) == b"an answer"
