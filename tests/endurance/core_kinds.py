"""Every kind of sealed message, each on its way to somebody who can open it, and what a flipped bit does to it."""

from collections.abc import Callable, Iterable
from datetime import timedelta

from msgspec.structs import replace

from aimessage.e2ee.header import Header
from aimessage.e2ee.session import Envelope
from aimessage.errors import DecryptionFailed
from support.agents import Party, acquainted, strangers

__all__ = ["KINDS", "Kind", "bits_of", "flipped", "flips_that_pass"]

BODY = b"\x2a" * 128  # the smallest padded body

Kind = Callable[[int], tuple[Party, Party, Envelope]]
"""From a seed: the sender, the receiver, and a message that only has to be opened."""


def _first(seed: int, *, with_pair: bool) -> tuple[Party, Party, Envelope]:
    alice, bobby = strangers(seed)
    alice.start(bobby, with_pair=with_pair)
    envelope = alice.seal(BODY)
    _, part, _ = Header.split(envelope.sealed)
    assert part is not None and bool(part.pair_reference) == with_pair
    return alice, bobby, envelope


def _mid_session(seed: int) -> tuple[Party, Party, Envelope]:
    alice, bobby = acquainted(seed)
    bobby.open(alice.seal(BODY))
    return alice, bobby, alice.seal(BODY)


def _turn(seed: int) -> tuple[Party, Party, Envelope]:
    alice, bobby = acquainted(seed)
    return alice, bobby, alice.seal(BODY)


def _late(seed: int) -> tuple[Party, Party, Envelope]:
    alice, bobby, late = _mid_session(seed)
    bobby.open(alice.seal(BODY))
    return alice, bobby, late


def _with_kem_key(seed: int) -> tuple[Party, Party, Envelope]:
    alice, bobby = acquainted(seed)
    alice.later(timedelta(hours=2))
    bobby.open(alice.seal(BODY))
    alice.open(bobby.seal(BODY))
    envelope = alice.seal(BODY)
    assert Header.split(envelope.sealed)[0].kem_public
    return alice, bobby, envelope


def _with_kem_ciphertext(seed: int) -> tuple[Party, Party, Envelope]:
    alice, bobby, asking = _with_kem_key(seed)
    bobby.open(asking)
    envelope = bobby.seal(BODY)
    assert Header.split(envelope.sealed)[0].kem_ciphertext
    return bobby, alice, envelope


KINDS: dict[str, Kind] = {
    "first message with a pair": lambda seed: _first(seed, with_pair=True),
    "first message without a pair": lambda seed: _first(seed, with_pair=False),
    "mid-session": _mid_session,
    "turn": _turn,
    "late, under a kept key": _late,
    "with a KEM key": _with_kem_key,
    "with a KEM ciphertext": _with_kem_ciphertext,
}


def bits_of(envelope: Envelope) -> range:
    """Every bit of the sealed message."""
    return range(len(envelope.sealed) * 8)


def flipped(envelope: Envelope, bit: int) -> Envelope:
    """The message with one bit the other way round."""
    sealed = bytearray(envelope.sealed)
    sealed[bit // 8] ^= 1 << bit % 8
    return replace(envelope, sealed=bytes(sealed))


def flips_that_pass(receiver: Party, envelope: Envelope, bits: Iterable[int]) -> list[int]:
    """Return the bits whose flip was opened, or left a trace in the conversation; none, if all is well."""
    before, passed = receiver.conversation.dump(), []
    for bit in bits:
        try:
            receiver.try_open(flipped(envelope, bit))
        except DecryptionFailed:
            if receiver.conversation.dump() == before:
                continue
        passed.append(bit)
    return passed
