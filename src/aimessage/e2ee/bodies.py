"""The plaintext of a message: what it says, and what its sender wants said of it. Spec: docs/spec/bodies.md."""

from enum import IntFlag

import msgspec

from aimessage.errors import MalformedOctets, TooLarge

__all__ = [
    "BODY_BYTES",
    "Body",
    "Receipts",
    "decode_body",
    "encode_body",
    "pad",
    "require_fits",
    "spare_bytes",
    "unpad",
]

BODY_BYTES = 64 << 10
"""The largest padded body."""
_BUCKETS = (128, 256, 512, *(kib << 10 for kib in range(1, 65)))
_TOO_BIG = 1 << 62
_SURELY_FITS = BODY_BYTES // 4 - 256  # characters, whatever UTF-8 makes of them
_KINDS = frozenset({"text", "data", "receipt", "retry"})


class Receipts(IntFlag):
    """Which fates the sender wants to hear of; SOON: somebody waits for them."""

    NONE = 0
    DELIVERED = 1
    READ = 2
    HANDLED = 4
    SOON = 8


class Body(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One body. Fields are only ever appended, with a default; times in milliseconds since 1970, 0 for none.

    `kind` is text, data, or one of the control kinds receipt and retry. `sequence` counts this vault's bodies to
    this peer from 1 (0 for control mail, which has no order). `report` is the payload of control mail, or receipts
    that a message takes along. `tree_head` has room for a signed key-transparency tree head.
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

    @property
    def is_control(self) -> bool:
        """Whether this is between the programs and never shown."""
        return self.kind not in ("text", "data")


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
    numbers = (body.sequence, body.sent_at, body.expires_at, body.hops, body.receipts)
    if body.kind not in _KINDS or min(numbers) < 0 or max(numbers) >= _TOO_BIG or len(body.reply_to) not in (0, 16):
        raise MalformedOctets("the body is of an unknown kind, or a number or an id in it is out of range")
    return body


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
