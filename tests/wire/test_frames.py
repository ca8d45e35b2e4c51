"""Every frame survives the journey, and no tag ever changes its meaning."""

import typing

import msgspec
import pytest

from aimessage.wire import frames
from aimessage.wire.codec import client_codec, encode_frames, relay_codec, split
from aimessage.wire.limits import Limits

CLIENT, RELAY = typing.get_args(frames.ClientFrame), typing.get_args(frames.RelayFrame)
TAGS = {
    "Prove": 1, "Register": 2, "Publish": 3, "StockPairs": 4, "FetchBundle": 5, "Post": 6, "Subscribe": 7,
    "Acknowledge": 8, "ListUsers": 9, "StoreState": 10, "FetchState": 11, "Welcome": 64, "Proved": 65, "Refused": 66,
    "Done": 67, "BundleAnswer": 68, "Accepted": 69, "Subscribed": 70, "Deliver": 71, "CaughtUp": 72, "Users": 73,
    "StateAnswer": 74, "PairsLow": 75, "Bye": 76,
}  # fmt: skip
SAMPLES: dict[object, object] = {
    str: "text", bytes: b"octets", int: 2**40, float: 1.5, bool: True, list[str]: ["a"], list[bytes]: [b"a", b"b"],
    list[frames.Ack]: [frames.Ack(1, b"id")], list[frames.UserRow]: [frames.UserRow("alice", True)],
    Limits: Limits(),
}  # fmt: skip


def sample(kind: type[frames.AnyFrame]) -> frames.AnyFrame:
    build: typing.Any = kind
    frame: frames.AnyFrame = build(**{field.name: SAMPLES[field.type] for field in msgspec.structs.fields(kind)})
    return frame


def test_the_tags_are_frozen() -> None:
    assert {kind.__name__: kind.__struct_config__.tag for kind in CLIENT + RELAY} == TAGS


@pytest.mark.parametrize("kind", CLIENT + RELAY)
def test_each_frame_comes_back_as_it_was(kind: type[frames.AnyFrame]) -> None:
    frame = sample(kind)
    codec: typing.Any = client_codec if kind in CLIENT else relay_codec
    (raw,) = split(encode_frames([frame]))
    assert codec.decode(raw) == frame
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(raw), "a field of tomorrow"])
    assert codec.decode(msgspec.Raw(longer)) == frame
