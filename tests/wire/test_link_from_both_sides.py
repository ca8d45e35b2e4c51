"""Both ends of a link against each other; the network is a list of messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimessage.errors import RemoteProtocolError
from aimessage.wire.codec import UnknownFrame, encode_frames
from aimessage.wire.frames import Bye, Done, ListUsers, Prove, Proved, Refused, RelayFrame, Welcome
from aimessage.wire.limits import Limits
from aimessage.wire.link import ClientLink, LinkFailed, RelayLink, State

WELCOME = Welcome(b"n" * 32, b"r" * 16, "relay", "1", 0, Limits(), [])
PROOF = Prove("alice", "localhost", b"c" * 16, b"v" * 16, b"s" * 64)
PROVED = Proved(0, 1, b"v" * 16)


def carry(source: ClientLink | RelayLink, target: ClientLink | RelayLink) -> None:
    """Carry what *source* queued to *target*."""
    for message in source.data_to_send():
        target.receive_message(message)


def greeted() -> tuple[ClientLink, RelayLink]:
    """Return both ends after `Welcome`."""
    client, relay = ClientLink(), RelayLink()
    relay.greet(WELCOME)
    carry(relay, client)
    assert client.events_received() == [WELCOME]
    return client, relay


def opened() -> tuple[ClientLink, RelayLink]:
    """Return both ends after the login."""
    client, relay = greeted()
    client.prove(PROOF)
    carry(client, relay)
    assert relay.events_received() == [PROOF]
    relay.admit(PROVED)
    carry(relay, client)
    assert client.events_received() == [PROVED]
    assert client.state is relay.state is State.OPEN
    return client, relay


def test_what_is_pipelined_behind_the_proof_is_held_until_it_is_judged() -> None:
    client, relay = greeted()
    client.prove(PROOF)
    client.send([ListUsers(1), ListUsers(2)])
    carry(client, relay)

    assert relay.events_received() == [PROOF]
    relay.admit(PROVED)
    assert relay.events_received() == [ListUsers(1), ListUsers(2)]


def test_a_rejected_proof_drops_what_was_pipelined_and_closes_both_ends() -> None:
    client, relay = greeted()
    client.prove(PROOF)
    client.send([ListUsers(1)])
    carry(client, relay)
    relay.reject(Refused(0, "proof_rejected", "no"))
    carry(relay, client)

    assert relay.events_received() == [PROOF]
    assert client.events_received() == [Refused(0, "proof_rejected", "no")]
    assert client.state is relay.state is State.CLOSED


def test_several_frames_to_a_message_equal_one_frame_to_a_message() -> None:
    answers: list[RelayFrame] = [Done(1), Done(2), Refused(3, "denied", "no"), Done(4)]
    whole, one_by_one = opened(), opened()
    whole[1].send(answers)
    for answer in answers:
        one_by_one[1].send([answer])
    for client, relay in (whole, one_by_one):
        carry(relay, client)

    assert whole[0].events_received() == one_by_one[0].events_received() == answers


def test_a_second_proof_ends_the_link_whether_pipelined_or_later() -> None:
    client, early = greeted()
    client.prove(PROOF)
    carry(client, early)
    early.receive_message(encode_frames([PROOF]))
    early.admit(PROVED)
    _, late = opened()
    late.receive_message(encode_frames([PROOF]))

    for relay in (early, late):
        assert isinstance(relay.events_received()[-1], LinkFailed)
        assert relay.state is State.CLOSED


def test_the_client_refuses_to_speak_out_of_turn() -> None:
    with pytest.raises(RemoteProtocolError):
        ClientLink().prove(PROOF)
    client, _ = greeted()
    with pytest.raises(RemoteProtocolError):
        client.send([ListUsers(1)])
    client.prove(PROOF)
    with pytest.raises(RemoteProtocolError):
        client.prove(PROOF)


def test_nothing_is_read_on_a_closed_link() -> None:
    client, relay = opened()
    relay.close(Bye("draining", "later"))
    relay.close(Bye("draining", "again"))
    carry(relay, client)
    assert client.events_received() == [Bye("draining", "later")]
    client.receive_message(encode_frames([Done(1)]))
    relay.receive_message(encode_frames([ListUsers(1)]))

    assert client.events_received() == relay.events_received() == []


def test_a_frame_of_a_later_version_leaves_the_link_up() -> None:
    client, relay = opened()
    relay.receive_message(b"\x91\x93\x3f\x07\x01")
    client.receive_message(b"\x91\x92\x7f\x07")

    assert relay.events_received() == [UnknownFrame(63, 7)]
    assert client.events_received() == []
    assert client.state is relay.state is State.OPEN


@given(message=st.binary(max_size=200))
def test_any_bytes_give_events_or_one_failure(message: bytes) -> None:
    for link in opened():
        link.receive_message(message)
        events = link.events_received()
        assert (link.state is State.CLOSED) == any(isinstance(event, LinkFailed | Bye | Refused) for event in events)
