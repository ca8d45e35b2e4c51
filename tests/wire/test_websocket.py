"""The client's half of RFC 6455, held against wsproto as the server: the same bytes, the same messages."""

import os
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, Pong, Request

from aimessage.crypto.kdf import sha1
from aimessage.errors import RemoteProtocolError
from aimessage.wire.websocket import ClientWebSocket, SocketClosed, SocketFailed, SocketOpened, SocketRefused

MESSAGE_BYTES = 1 << 20


def client() -> ClientWebSocket:
    return ClientWebSocket(
        "relay.example:8080",
        "/ws",
        "aimessage.v1",
        sha1=sha1,
        entropy=os.urandom,
        message_bytes=MESSAGE_BYTES,
    )


def opened() -> tuple[ClientWebSocket, WSConnection]:
    """Both ends after a handshake."""
    ours, theirs = client(), WSConnection(ConnectionType.SERVER)
    theirs.receive_data(ours.data_to_send())
    [request] = theirs.events()
    assert isinstance(request, Request)
    assert (request.host, request.target, request.subprotocols) == ("relay.example:8080", "/ws", ["aimessage.v1"])
    ours.receive_data(theirs.send(AcceptConnection(subprotocol="aimessage.v1")))
    assert ours.events_received() == [SocketOpened()]
    return ours, theirs


def heard(theirs: WSConnection, octets: bytes) -> list[Event]:
    theirs.receive_data(octets)
    return list(theirs.events())


def whole(events: Sequence[Event]) -> list[bytes]:
    """The binary messages among *events*, put together."""
    messages, now = [], b""
    for event in events:
        if isinstance(event, BytesMessage):
            now += event.data
            if event.message_finished:
                messages.append(now)
                now = b""
    return messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 300_000])
def test_a_message_of_any_size_arrives_in_both_directions(size: int) -> None:
    ours, theirs = opened()
    message = os.urandom(size)
    ours.send(message)
    assert whole(heard(theirs, ours.data_to_send())) == [message]
    ours.receive_data(theirs.send(BytesMessage(message)))
    assert ours.events_received() == [message]


@given(messages=st.lists(st.binary(max_size=300), max_size=5), cuts=st.lists(st.integers(1, 64), max_size=60))
def test_bytes_in_any_pieces_give_the_same_messages(messages: list[bytes], cuts: list[int]) -> None:
    ours, theirs = opened()
    stream = b"".join(theirs.send(BytesMessage(message)) for message in messages)
    while stream:
        size = cuts.pop() if cuts else len(stream)
        ours.receive_data(stream[:size])
        stream = stream[size:]
    assert ours.events_received() == messages


@given(pieces=st.lists(st.binary(max_size=200), min_size=1, max_size=6), pinged=st.booleans())
def test_fragments_are_put_together_and_a_ping_between_them_is_answered(pieces: list[bytes], pinged: bool) -> None:
    ours, theirs = opened()
    for at, piece in enumerate(pieces):
        ours.receive_data(theirs.send(BytesMessage(piece, message_finished=at == len(pieces) - 1)))
        if pinged:
            ours.receive_data(theirs.send(Ping(b"are you there")))
    assert ours.events_received() == [b"".join(pieces)]
    pongs = [event.payload for event in heard(theirs, ours.data_to_send()) if isinstance(event, Pong)]
    assert pongs == [b"are you there"] * (len(pieces) if pinged else 0)


def test_a_farewell_is_answered_and_nothing_is_sent_after_it() -> None:
    ours, theirs = opened()
    ours.receive_data(theirs.send(CloseConnection(1001)) + theirs_noise())
    assert ours.events_received() == [SocketClosed(1001)]
    [answer] = heard(theirs, ours.data_to_send())
    assert isinstance(answer, CloseConnection)
    assert answer.code == 1001
    with pytest.raises(RemoteProtocolError):
        ours.send(b"too late")


def theirs_noise() -> bytes:
    return b"\x82\x01x"


@pytest.mark.parametrize(
    "frame",
    [
        b"\xc2\x01x",  # a reserved bit
        b"\x82\x81abcdx",  # masked by the server
        b"\x81\x01x",  # text
        b"\x83\x01x",  # an opcode that is not defined
        b"\x80\x01x",  # a continuation of nothing
        b"\x02\x01x\x82\x01y",  # a message within a message
        b"\x09\x01x",  # a fragmented ping
        b"\x89\x7e\x00\x7e" + bytes(126),  # a long ping
        b"\x88\x01x",  # half a close code
        b"\x82\x7f" + (1 << 62).to_bytes(8, "big"),  # 2^62 bytes announced
        b"\x02\x7f" + MESSAGE_BYTES.to_bytes(8, "big") + bytes(MESSAGE_BYTES) + b"\x80\x01x",  # too much in pieces
    ],
)
def test_what_no_server_may_send_ends_the_connection_at_once(frame: bytes) -> None:
    ours, _ = opened()
    ours.receive_data(frame)
    [event] = ours.events_received()
    assert isinstance(event, SocketFailed)
    ours.receive_data(theirs_noise())
    assert ours.events_received() == []


def answer(**changed: str) -> bytes:
    headers = {
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Accept": "",
        "Sec-WebSocket-Protocol": "aimessage.v1",
    } | {name.replace("_", "-"): value for name, value in changed.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
    return b"HTTP/1.1 101 Switching Protocols\r\n" + lines.encode() + b"\r\n"


def accept_of(ours: ClientWebSocket) -> str:
    theirs = WSConnection(ConnectionType.SERVER)
    theirs.receive_data(ours.data_to_send())
    list(theirs.events())
    head = theirs.send(AcceptConnection(subprotocol="aimessage.v1")).decode()
    return next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-accept"))


@pytest.mark.parametrize(
    "changed",
    [
        {"Sec_WebSocket_Accept": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="},
        {"Upgrade": "h2c"},
        {"Connection": "close"},
        {"Sec_WebSocket_Protocol": "chat"},
        {"Sec_WebSocket_Extensions": "permessage-deflate"},
    ],
)
def test_an_answer_that_agrees_to_something_else_is_refused(changed: dict[str, str]) -> None:
    good = client()
    good.receive_data(answer(Sec_WebSocket_Accept=accept_of(good)))
    assert good.events_received() == [SocketOpened()]
    ours = client()
    ours.receive_data(answer(**({"Sec_WebSocket_Accept": accept_of(ours)} | changed)))
    [event] = ours.events_received()
    assert isinstance(event, SocketFailed)


def test_a_server_that_has_no_room_says_when_to_come_again() -> None:
    ours = client()
    ours.receive_data(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\r\ntoo many requests\n")
    assert ours.events_received() == [SocketRefused(429, "7")]


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_give_events_and_never_an_exception(octets: bytes, is_open: bool) -> None:
    at_once, in_drops = (opened()[0], opened()[0]) if is_open else (client(), client())
    at_once.receive_data(octets)
    for at in range(len(octets)):
        in_drops.receive_data(octets[at : at + 1])
    assert [type(event) for event in at_once.events_received()] == [type(event) for event in in_drops.events_received()]


def test_a_head_without_an_end_is_bounded() -> None:
    ours = client()
    ours.receive_data(b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 20_000)
    [event] = ours.events_received()
    assert isinstance(event, SocketFailed)
