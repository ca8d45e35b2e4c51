"""Frames to WebSocket messages and back: one message is a MessagePack array of frames.

The frames of a message are split before any is decoded, so one that is unknown or malformed spoils only itself.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec

from aimessage.errors import RemoteProtocolError
from aimessage.wire.frames import AnyFrame, ClientFrame, RelayFrame
from aimessage.wire.limits import ANNOUNCED_MESSAGE_BYTES, FRAMES_PER_MESSAGE

__all__ = ["Codec", "UnknownFrame", "client_codec", "encode_frames", "relay_codec", "split"]

_FrameT = TypeVar("_FrameT")

_encoder = msgspec.msgpack.Encoder()
_splitter = msgspec.msgpack.Decoder(list[msgspec.Raw])
_loose = msgspec.msgpack.Decoder()


class UnknownFrame(msgspec.Struct, frozen=True):
    """A frame of a later version. *request_id* is its request id, or 0 if it has none."""

    tag: int
    request_id: int


def encode_frames(frames: Sequence[AnyFrame]) -> bytes:
    """Return *frames* as one WebSocket message."""
    return _encoder.encode(frames)


def split(message: bytes, most: int = FRAMES_PER_MESSAGE) -> list[msgspec.Raw]:
    """Return the still encoded frames of one WebSocket message, of which there may be *most*.

    Raises RemoteProtocolError: over the size or count limits, or not an array of MessagePack values.
    """
    if len(message) > ANNOUNCED_MESSAGE_BYTES:
        raise RemoteProtocolError("the message is larger than announced")
    try:
        frames = _splitter.decode(message)
    except (msgspec.DecodeError, RecursionError):
        raise RemoteProtocolError("the message is not an array of frames") from None
    if len(frames) > most:
        raise RemoteProtocolError("the message has more frames than announced")
    return frames


class Codec(Generic[_FrameT]):
    """Decodes the frames of one direction; each decoder is made when it is first needed, because that takes a while."""

    def __init__(self, frames: Any, tags: Iterable[int]) -> None:  # noqa: ANN401 - a union of types
        self._frames = frames
        self._list_of_frames = list[frames]
        self._tags = frozenset(tags)

    @cached_property
    def _decoder(self) -> "msgspec.msgpack.Decoder[_FrameT]":
        return msgspec.msgpack.Decoder(self._frames)

    @cached_property
    def _whole(self) -> "msgspec.msgpack.Decoder[list[_FrameT]]":
        return msgspec.msgpack.Decoder(self._list_of_frames)

    def decode_whole(self, message: bytes, most: int = FRAMES_PER_MESSAGE) -> list[_FrameT] | None:
        """Return the frames of one WebSocket message, if each of them is known and well formed; else None: `split` it.

        So nearly every message is read in one pass.
        """
        try:
            frames = self._whole.decode(message) if len(message) <= ANNOUNCED_MESSAGE_BYTES else None
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
            return None
        return frames if frames is not None and len(frames) <= most else None

    def decode(self, raw: msgspec.Raw) -> _FrameT | UnknownFrame:
        """Return the frame, or what can be said of one with an unknown tag.

        Raises RemoteProtocolError: a known frame with wrong fields, or no frame at all.
        """
        try:
            return self._decoder.decode(raw)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
            return self._unknown(raw)

    def _unknown(self, raw: msgspec.Raw) -> UnknownFrame:
        try:
            fields = _loose.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError, RecursionError):
            fields = None
        match fields:
            case [int(tag), *rest] if not isinstance(tag, bool) and tag not in self._tags:
                request_id = rest[0] if rest and type(rest[0]) is int and 0 < rest[0] < 2**63 else 0
                return UnknownFrame(tag=tag, request_id=request_id)
            case _:
                raise RemoteProtocolError("a frame is malformed")


client_codec: Codec[ClientFrame] = Codec(ClientFrame, range(1, 12))
"""Decodes what clients send: the relay's codec."""
relay_codec: Codec[RelayFrame] = Codec(RelayFrame, range(64, 77))
"""Decodes what the relay sends: the client's codec."""
