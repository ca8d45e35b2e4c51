"""The payload of control mail: which messages had which fate, which are wanted again. Spec: docs/spec/bodies.md."""

from collections.abc import Iterable, Mapping

import msgspec

from aimessage.e2ee.bodies import Receipts
from aimessage.errors import MalformedOctets
from aimessage.types import ID_BYTES, MessageId

__all__ = [
    "IDS_PER_REPORT",
    "decode_receipts",
    "decode_retry",
    "encode_receipts",
    "encode_retry",
    "receipts_within",
]

IDS_PER_REPORT = 500
"""How many messages one control body speaks of, at most."""
_ENCODED_ID_BYTES = 18
_FRAME_BYTES = 20  # of a report of three fates, at most, where an empty one was
_FATES = {int(fate): fate for fate in (Receipts.DELIVERED, Receipts.READ, Receipts.HANDLED)}
_receipts = msgspec.msgpack.Decoder(list[tuple[int, list[bytes]]])
_retry = msgspec.msgpack.Decoder(list[bytes])


def encode_receipts(fates: Mapping[Receipts, Iterable[MessageId]]) -> bytes:
    """Return the report of a receipt: for each fate, the ids that had it."""
    return msgspec.msgpack.encode([(int(fate), list(ids)) for fate, ids in sorted(fates.items())])


def receipts_within(size: int) -> int:
    """Return how many ids a report of receipts can name that makes its body longer by at most *size* bytes."""
    return max(0, min(IDS_PER_REPORT, (size - _FRAME_BYTES) // _ENCODED_ID_BYTES))


def decode_receipts(report: bytes) -> list[tuple[Receipts, list[MessageId]]]:
    """Return the fates that a peer reports; one that we do not know is left out. Raises MalformedOctets."""
    try:
        rows = _receipts.decode(report)
    except msgspec.DecodeError:
        raise MalformedOctets("the receipt is malformed") from None
    _require_ids([each for _, ids in rows for each in ids])
    told: dict[Receipts, list[MessageId]] = {}
    for fate, ids in rows:
        if ids and fate in _FATES:
            told.setdefault(_FATES[fate], []).extend(map(MessageId, ids))
    return list(told.items())


def encode_retry(ids: Iterable[MessageId]) -> bytes:
    """Return the report of a retry request: the ids that did not open."""
    return msgspec.msgpack.encode(list(ids))


def decode_retry(report: bytes) -> list[MessageId]:
    """Return the ids that a peer asks for again. Raises MalformedOctets."""
    try:
        ids = _retry.decode(report)
    except msgspec.DecodeError:
        raise MalformedOctets("the retry request is malformed") from None
    _require_ids(ids)
    return [MessageId(each) for each in ids]


def _require_ids(ids: list[bytes]) -> None:
    if len(ids) > IDS_PER_REPORT or any(len(each) != ID_BYTES for each in ids):
        raise MalformedOctets("a report names too many messages, or something that is no message id")
