from aimessage.wire.codec import encode_frames
from aimessage.wire.frames import AnyFrame, FetchState, Prove, Proved, Refused, Welcome
from aimessage.wire.limits import PIPELINE_BYTES, Limits
from aimessage.wire.link import LinkFailed, RelayLink, State

PROOF = Prove("alice", "localhost", bytes(32), bytes(16), bytes(64))
WELCOME = Welcome(bytes(32), bytes(16), "relay", "0", 0, Limits(), [])
PROVED = Proved(0, 0, bytes(16))


def greeted() -> RelayLink:
    link = RelayLink()
    link.greet(WELCOME)
    return link


def test_pipelined_requests_are_held_until_the_proof_is_admitted_whole_and_piece_by_piece() -> None:
    whole, pieces = greeted(), greeted()
    frames: list[AnyFrame] = [PROOF, FetchState(1), FetchState(2)]
    whole.receive_message(encode_frames(frames))
    for frame in frames:
        pieces.receive_message(encode_frames([frame]))

    for link in (whole, pieces):
        assert link.events_received() == [PROOF]
        link.admit(PROVED)
        assert link.events_received() == [FetchState(1), FetchState(2)]


def test_pipelined_requests_are_dropped_with_a_rejected_proof() -> None:
    link = greeted()
    link.receive_message(encode_frames([PROOF, FetchState(1)]))
    link.reject(Refused(0, "proof_rejected", "no"))

    assert link.events_received() == [PROOF]
    assert link.state is State.CLOSED


def test_a_second_proof_fails_the_link() -> None:
    link = greeted()
    link.receive_message(encode_frames([PROOF, PROOF]))
    link.admit(PROVED)

    assert isinstance(link.events_received()[-1], LinkFailed)


def test_too_much_before_the_verdict_fails_the_link() -> None:
    link = greeted()
    link.receive_message(bytes(PIPELINE_BYTES + 1))

    assert isinstance(link.events_received()[-1], LinkFailed)
