import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.errors import RemoteProtocolError
from aimessage.wire.codec import UnknownFrame, client_codec, encode_frames, relay_codec, split
from aimessage.wire.frames import FetchState, ListUsers


@given(st.binary(max_size=300))
def test_any_bytes_give_frames_or_a_protocol_error(octets: bytes) -> None:
    for codec in (client_codec, relay_codec):
        try:
            for raw in split(octets):
                codec.decode(raw)
        except RemoteProtocolError:
            pass


@given(st.integers(1, 2**63 - 1), st.booleans(), st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_frame_survives_the_journey(request_id: int, everyone: bool, after: str) -> None:
    frame = ListUsers(request_id, everyone, after)

    assert [client_codec.decode(raw) for raw in split(encode_frames([frame, frame]))] == [frame, frame]


def test_fields_of_a_later_version_are_ignored() -> None:
    (raw,) = split(msgspec.msgpack.encode([[11, 7, "later", 9]]))

    assert client_codec.decode(raw) == FetchState(7)


def test_an_unknown_frame_keeps_its_request_id() -> None:
    (raw,) = split(msgspec.msgpack.encode([[60, 7, "later"]]))

    assert client_codec.decode(raw) == UnknownFrame(tag=60, request_id=7)


def test_a_known_frame_with_wrong_fields_is_refused() -> None:
    (raw,) = split(msgspec.msgpack.encode([[11, "seven"]]))

    with pytest.raises(RemoteProtocolError):
        client_codec.decode(raw)
