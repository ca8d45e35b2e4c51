"""The cryptography of a message by itself, and what of it goes over the wire."""

import time
from collections.abc import Iterator
from pathlib import Path

from aimessage.crypto.random import system_entropy
from aimessage.e2ee.bodies import Body, decode_body, encode_body
from aimessage.types import MessageId
from aimessage.wire.codec import encode_frames
from aimessage.wire.frames import MailClass, Post
from benchmarks.figures import Sample
from support.agents import acquainted

__all__ = ["core"]

_COUNT = 2_000
_TURNS = {"one way": _COUNT, "turning after each four": 4, "each answered": 1}
"""How many messages go until the other side speaks, and the ratchet turns."""
_FRAME_HEAD = 6  # of a masked WebSocket frame of that size, RFC 6455 §5.2, less the length's two bytes
_LENGTH = 2


def core(_: Path) -> Iterator[Sample]:
    """Seal and open 256 B, and count the bytes of each Post, in three ways of talking."""
    aes = "AES-256-GCM of 256 B"
    for way, turn in _TURNS.items():
        sealing, opening, size = _talk(turn)
        yield Sample(f"cryptography to seal 256 B, {way}", sealing, "µs", aes, bar=40)
        yield Sample(f"cryptography to open 256 B, {way}", opening, "µs", aes, bar=40)
        yield Sample(f"bytes on the wire for a body of 256 B, {way}", size, "B", bar=450)


def _talk(turn: int) -> tuple[float, float, float]:
    """Return the microseconds to seal and to open a message, and its bytes: means of *_COUNT*."""
    sender, recipient = acquainted()
    sealing = opening = size = 0.0
    for number in range(_COUNT):
        if number % turn == 0:
            sender, recipient = recipient, sender
        body = Body("text", bytes(16), number + 1, 1_795_000_000_000, text="x" * 180, thread="t-7")
        began = time.perf_counter()
        envelope = sender.seal(encode_body(body))
        sealed = time.perf_counter()
        decode_body(recipient.open(envelope))
        opened = time.perf_counter()
        sealing, opening = sealing + sealed - began, opening + opened - sealed
        post = Post(
            number, recipient.name, MessageId(system_entropy(16)), 0, int(MailClass.MESSAGE), 0, envelope.sealed
        )
        size += len(encode_frames([post])) + _FRAME_HEAD + _LENGTH
    return sealing / _COUNT * 1e6, opening / _COUNT * 1e6, size / _COUNT
