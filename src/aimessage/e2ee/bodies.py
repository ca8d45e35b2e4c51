"""The plaintext of a message: what it says, and what its sender wants said of it. Spec: docs/spec/bodies.md."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import IntFlag

import msgspec

from aimessage.errors import MalformedOctets, TooLarge
from aimessage.types import ID_BYTES, MessageId

__all__ = [
    "BATCH_BYTES",
    "BODY_BYTES",
    "MOST_PARTS",
    "Body",
    "Part",
    "Receipts",
    "batch_of",
    "decode_body",
    "encode_body",
    "pad",
    "part_bytes",
    "parts_of",
    "require_fits",
    "spare_bytes",
    "unpad",
]

BODY_BYTES = 64 << 10
"""The largest padded body."""
MOST_PARTS = 128
"""Messages that one batch carries, at most."""
BATCH_BYTES = 60 << 10
"""What the parts of a batch may take by `part_bytes`, so that it fits with its frame and a few receipts."""
_PART_FRAME_BYTES = 120  # of a part beside its texts, at most
_BUCKETS = (128, 256, 512, *(kib << 10 for kib in range(1, 65)))
_TOO_BIG = 1 << 62
_SURELY_FITS = BODY_BYTES // 4 - 256  # characters, whatever UTF-8 makes of them
_SAID = frozenset({"text", "data"})
_KINDS = _SAID | {"receipt", "retry", "batch"}


class Receipts(IntFlag):
    """Which fates the sender wants to hear of; SOON: somebody waits for them."""

    NONE = 0
    DELIVERED = 1
    READ = 2
    HANDLED = 4
    SOON = 8


class Body(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One body. Fields are only ever appended, with a default; times in milliseconds since 1970, 0 for none.

    `kind` is text, data, batch, or one of the control kinds receipt and retry. `sequence` counts this vault's bodies
    to this peer from 1 (0 for control mail and batches, which have no order of their own). `report` is the payload of
    control mail, or receipts that a message takes along. `tree_head` has room for a signed key-transparency tree head.
    `parts` are the messages of a batch.
    """

    kind: str
    vault_id: bytes
    sequence: int
    sent_at: int
    text: str = ""
    data: str = ""
    thread: str = ""
    reply_to: bytes = b""
    expires_at: int = 0
    hops: int = 0
    expects_reply: bool = True
    receipts: int = 1
    report: bytes = b""
    tree_head: bytes = b""
    room: str = ""
    parts: "tuple[Part, ...]" = ()

    @property
    def is_control(self) -> bool:
        """Whether this is between the programs and never shown."""
        return self.kind in ("receipt", "retry")


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of a batch: its own id (16 bytes), and its body, whose vault is the batch's."""

    id: bytes
    body: Body


_decoder = msgspec.msgpack.Decoder(Body)


def encode_body(body: Body) -> bytes:
    """Return the padded plaintext.

    Raises TooLarge: it does not fit 64 KiB.
    """
    return pad(msgspec.msgpack.encode(body))


def require_fits(body: Body) -> None:
    """Return nothing if *body* fits 64 KiB in whatever place of its sender's order. Raises TooLarge."""
    if len(body.text) + len(body.data) + len(body.thread) >= _SURELY_FITS:
        pad(msgspec.msgpack.encode(msgspec.structs.replace(body, vault_id=bytes(16), sequence=_TOO_BIG)))


def spare_bytes(body: Body) -> int:
    """Return how many bytes of *body*'s padding could say something. Raises TooLarge."""
    octets = msgspec.msgpack.encode(body)
    return len(pad(octets)) - len(octets) - 1


def decode_body(octets: bytes) -> Body:
    """Return the body that a peer sealed.

    Raises MalformedOctets: the padding or the structure is wrong, or the kind is unknown.
    """
    try:
        body = _decoder.decode(unpad(octets))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedOctets("the body is malformed") from None
    _require_sense(body, _KINDS)
    if (body.kind == "batch") is not bool(body.parts) or len(body.parts) > MOST_PARTS:
        raise MalformedOctets("a batch has no parts or too many, or what is none has some")
    for part in body.parts:
        _require_sense(part.body, _SAID)
        if len(part.id) != ID_BYTES or part.body.parts or part.body.report:
            raise MalformedOctets("a part of a batch is no message")
    return body


def _require_sense(body: Body, kinds: AbstractSet[str]) -> None:
    numbers = (body.sequence, body.sent_at, body.expires_at, body.hops, body.receipts)
    if body.kind not in kinds or min(numbers) < 0 or max(numbers) >= _TOO_BIG or len(body.reply_to) not in (0, 16):
        raise MalformedOctets("the body is of an unknown kind, or a number or an id in it is out of range")


def part_bytes(body: Body) -> int:
    """Return at most how many bytes *body* takes in a batch."""
    said = (body.text, body.data, body.thread)
    return _PART_FRAME_BYTES + sum(len(each) if each.isascii() else len(each.encode()) for each in said)


def batch_of(messages: Sequence[tuple[MessageId, Body]]) -> Body:
    """Return the batch of several *messages* of one vault, in their order. The caller's duty: they fit."""
    first = messages[0][1]
    replace = msgspec.structs.replace
    parts = tuple([Part(message_id, replace(body, vault_id=b"")) for message_id, body in messages])
    return Body("batch", first.vault_id, 0, first.sent_at, receipts=0, parts=parts)


def parts_of(batch: Body) -> list[tuple[MessageId, Body]]:
    """Return the messages of a *batch* that was decoded, in their order."""
    replace, vault_id = msgspec.structs.replace, batch.vault_id
    return [(MessageId(part.id), replace(part.body, vault_id=vault_id)) for part in batch.parts]


def pad(octets: bytes) -> bytes:
    """Return *octets* ‖ 0x80 ‖ zeros up to 128, 256, 512 bytes or whole KiB. Source: ISO/IEC 7816-4.

    Raises TooLarge: over 64 KiB with its padding.
    """
    for size in _BUCKETS:
        if len(octets) < size:
            return octets + b"\x80" + bytes(size - len(octets) - 1)
    raise TooLarge("the message with its frame is larger than 64 KiB; about 65 400 bytes of text fit")


def unpad(octets: bytes) -> bytes:
    """Return what `pad` padded. Raises MalformedOctets."""
    content = octets.rstrip(b"\x00")
    if not content.endswith(b"\x80"):
        raise MalformedOctets("the padding is malformed")
    return content[:-1]
