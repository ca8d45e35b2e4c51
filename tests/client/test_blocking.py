"""The blocking link, against a relay whose every octet is chosen: what came before an end is heard before the end."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request

from aimessage.client.blocking import BlockingLink
from aimessage.client.dialling import Route
from aimessage.client.links import SUBPROTOCOL
from aimessage.client.waiting import Blocking, run_blocking
from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.errors import Blocked, LinkLost
from aimessage.types import Username
from aimessage.wire.codec import encode_frames
from aimessage.wire.frames import Bye, ListUsers, Prove, Proved, Refused, RelayFrame, Users, Welcome
from aimessage.wire.limits import Limits

PROOF = Prove(Username("alice"), "localhost", b"n" * 32, b"v" * 16, b"s" * 64)


@contextmanager
def relay_that_says(*frames: RelayFrame) -> Iterator[BlockingLink]:
    """Greet, and answer the first word with *frames* and the end of the connection, all in one write."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        speaking = threading.Thread(target=_speak, args=(listening, frames))
        speaking.start()
        route = Route(f"ws://127.0.0.1:{listening.getsockname()[1]}", None, None)
        try:
            with closing(BlockingLink(route, Blocking(), SystemClock(), system_entropy)) as link:
                link.greet()
                link.prove(PROOF)
                yield link
        finally:
            speaking.join()


def _speak(listening: socket.socket, frames: Sequence[RelayFrame]) -> None:
    machine = WSConnection(ConnectionType.SERVER)
    connection, _ = listening.accept()
    with connection:
        while not any(isinstance(event, Request) for event in machine.events()):
            machine.receive_data(connection.recv(65_536))
        welcome = Welcome(b"n" * 32, b"r" * 16, "test", "0", 0, Limits(), [])
        connection.sendall(machine.send(AcceptConnection(subprotocol=SUBPROTOCOL)))
        connection.sendall(machine.send(BytesMessage(encode_frames([welcome]))))
        connection.recv(65_536)
        said = machine.send(BytesMessage(encode_frames(frames))) if frames else b""
        connection.sendall(said + machine.send(CloseConnection(code=1008)))


def test_a_refusal_is_heard_though_the_end_comes_with_it() -> None:
    with relay_that_says(Refused(0, "blocked", "shut out")) as link, pytest.raises(Blocked):
        run_blocking(link.request(ListUsers, Users))


def test_a_farewell_is_heard_though_the_end_comes_with_it() -> None:
    with relay_that_says(Proved(0, 1, b"v" * 16), Bye("blocked", "shut out")) as link:
        run_blocking(link.proved())
        with pytest.raises(Blocked):
            run_blocking(link.pushed())


def test_an_answer_is_heard_though_the_end_comes_with_it() -> None:
    with relay_that_says(Proved(0, 1, b"v" * 16), Users(1, [])) as link:
        assert run_blocking(link.request(ListUsers, Users)) == Users(1, [])
        assert link.is_lost
        with pytest.raises(LinkLost):
            run_blocking(link.request(ListUsers, Users))


def test_an_end_without_a_word_is_a_lost_link() -> None:
    with relay_that_says() as link, pytest.raises(LinkLost):
        run_blocking(link.request(ListUsers, Users))
