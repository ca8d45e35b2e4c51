"""The link as a sans-I/O machine, for both roles: a table of (state, event) → state; a missing row is a violation.

The shell's duty, on either side: feed each whole WebSocket message to `receive_message`, then act on what
`events_received` returns and write what `data_to_send` returns, in that order. Nothing here raises for what a peer
does: a violation becomes a `LinkFailed` event, and the state is CLOSED.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Generic, TypeVar

import msgspec

from aimessage.errors import RemoteProtocolError
from aimessage.wire.codec import Codec, UnknownFrame, client_codec, encode_frames, relay_codec, split
from aimessage.wire.frames import (
    AnyFrame,
    Bye,
    ClientFrame,
    Prove,
    Proved,
    Refused,
    Register,
    RelayFrame,
    Welcome,
)
from aimessage.wire.limits import FRAMES_PER_MESSAGE, PIPELINE_BYTES

__all__ = ["CLIENT_TABLE", "RELAY_TABLE", "ClientLink", "LinkFailed", "Move", "RelayLink", "State"]


class State(Enum):
    """Where a link stands, seen from one side."""

    GREETING = auto()
    PROVING = auto()
    OPEN = auto()
    CLOSED = auto()


class Move(Enum):
    """What can happen to a link; the relay's frames and the client's, and the verdict on a proof."""

    WELCOME = auto()
    PROOF = auto()
    PROVED = auto()
    REJECTED = auto()
    FRAME = auto()
    BYE = auto()


RELAY_TABLE: dict[State, dict[Move, State]] = {
    State.GREETING: {Move.WELCOME: State.PROVING, Move.BYE: State.CLOSED},
    State.PROVING: {Move.PROVED: State.OPEN, Move.REJECTED: State.CLOSED, Move.BYE: State.CLOSED},
    State.OPEN: {Move.FRAME: State.OPEN, Move.BYE: State.CLOSED},
    State.CLOSED: {},
}
"""The relay's side: it speaks first, then holds everything back until the proof has been judged."""

CLIENT_TABLE: dict[State, dict[Move, State]] = {
    State.GREETING: {Move.WELCOME: State.PROVING, Move.BYE: State.CLOSED, Move.REJECTED: State.CLOSED},
    State.PROVING: {
        Move.PROOF: State.PROVING,
        Move.PROVED: State.OPEN,
        Move.REJECTED: State.CLOSED,
        Move.BYE: State.CLOSED,
    },
    State.OPEN: {Move.FRAME: State.OPEN, Move.REJECTED: State.CLOSED, Move.BYE: State.CLOSED},
    State.CLOSED: {},
}
"""The client's side: it proves itself after `Welcome` and may pipeline requests behind the proof."""


class LinkFailed(msgspec.Struct, frozen=True):
    """The peer broke the protocol; close the connection."""

    reason: str


_InT = TypeVar("_InT", bound=AnyFrame)


class _Link(Generic[_InT]):
    """What both roles share: the state, what came in, what must go out."""

    __slots__ = ("_codec", "_events", "_outgoing", "_state", "_table")  # a relay has many thousands of these

    def __init__(self, codec: Codec[_InT], table: dict[State, dict[Move, State]]) -> None:
        self._codec = codec
        self._table = table
        self._state = State.GREETING
        self._events: list[_InT | UnknownFrame | LinkFailed] = []
        self._outgoing: list[bytes] = []

    @property
    def state(self) -> State:
        """Where this side of the link stands."""
        return self._state

    def data_to_send(self) -> list[bytes]:
        """Return the WebSocket messages to write, and forget them."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def _move(self, move: Move) -> None:
        following = self._table[self._state].get(move)
        if following is None:
            raise RemoteProtocolError(f"{move.name.lower()} is not expected while {self._state.name.lower()}")
        self._state = following

    def _fail(self, reason: str) -> None:
        self._state = State.CLOSED
        self._events.append(LinkFailed(reason))

    def _take_events(self) -> list[_InT | UnknownFrame | LinkFailed]:
        events, self._events = self._events, []
        return events

    def _queue(self, frames: Sequence[AnyFrame]) -> None:
        self._outgoing.append(encode_frames(frames))


_PROOFS = frozenset({Prove, Register})


class RelayLink(_Link[ClientFrame]):
    """The relay's side. It yields one proof, then nothing until `admit` or `reject`, then requests."""

    __slots__ = ("_held", "_held_bytes", "_most", "_proof_seen")

    def __init__(self, frames_per_message: int = FRAMES_PER_MESSAGE) -> None:
        super().__init__(client_codec, RELAY_TABLE)
        self._most = frames_per_message
        self._held: list[msgspec.Raw] = []
        self._held_bytes = 0
        self._proof_seen = False

    def greet(self, welcome: Welcome) -> None:
        """Queue the first frame."""
        self._move(Move.WELCOME)
        self._queue([welcome])

    def receive_message(self, message: bytes) -> None:
        """Feed one WebSocket message; then call events_received() and data_to_send()."""
        if self._state is State.CLOSED:
            return
        try:
            if self._state is State.OPEN:
                self._take(message)
            else:
                self._before_admission(message)
        except RemoteProtocolError as error:
            self._fail(error.message)

    def events_received(self) -> list[ClientFrame | UnknownFrame | LinkFailed]:
        """Return what came in since the last call, in order."""
        return self._take_events()

    def admit(self, proved: Proved) -> None:
        """The proof holds: queue *proved* and release what was pipelined; then call events_received()."""
        self._move(Move.PROVED)
        self._queue([proved])
        held, self._held = self._held, []
        try:
            self._decode(held)
        except RemoteProtocolError as error:
            self._fail(error.message)

    def reject(self, refusal: Refused) -> None:
        """The proof does not hold: queue *refusal* and drop what was pipelined."""
        self._move(Move.REJECTED)
        self._held = []
        self._queue([refusal])

    def send(self, frames: Sequence[RelayFrame]) -> None:
        """Queue *frames* as one WebSocket message; the caller keeps within the announced size and count."""
        self._move(Move.FRAME)
        self._queue(frames)

    def close(self, bye: Bye) -> None:
        """Queue a farewell; nothing follows it. Does nothing on a closed link."""
        if self._state is not State.CLOSED:
            self._move(Move.BYE)
            self._queue([bye])

    def _before_admission(self, message: bytes) -> None:
        self._held_bytes += len(message)
        if self._held_bytes > PIPELINE_BYTES:
            raise RemoteProtocolError("too much was sent before the proof was judged")
        frames = split(message, self._most)
        if not self._proof_seen and frames:
            first, *frames = frames
            proof = self._codec.decode(first)
            if not isinstance(proof, Prove | Register):
                raise RemoteProtocolError("the first frame must be a proof")
            self._proof_seen = True
            self._events.append(proof)
        self._held += frames

    def _take(self, message: bytes) -> None:
        frames = self._codec.decode_whole(message, self._most)
        if frames is None or not _PROOFS.isdisjoint(map(type, frames)):
            self._decode(split(message, self._most))
        else:
            self._events += frames

    def _decode(self, frames: list[msgspec.Raw]) -> None:
        for raw in frames:
            frame = self._codec.decode(raw)
            if isinstance(frame, Prove | Register):
                raise RemoteProtocolError("a link carries one proof only")
            self._events.append(frame)


class ClientLink(_Link[RelayFrame]):
    """The client's side. After `Welcome` comes in: `prove`, then `send` at once, without waiting for `Proved`."""

    __slots__ = ("_proof_sent",)

    def __init__(self) -> None:
        super().__init__(relay_codec, CLIENT_TABLE)
        self._proof_sent = False

    def receive_message(self, message: bytes) -> None:
        """Feed one WebSocket message; then call events_received() and data_to_send()."""
        if self._state is State.CLOSED:
            return
        try:
            frames = self._codec.decode_whole(message) or map(self._codec.decode, split(message))
            for frame in frames:
                if not isinstance(frame, UnknownFrame):  # a later relay's hint: nothing that we asked for
                    self._move(_client_move(frame))
                    self._events.append(frame)
        except RemoteProtocolError as error:
            self._fail(error.message)

    def events_received(self) -> list[RelayFrame | LinkFailed]:
        """Return what came in since the last call, in order."""
        return [event for event in self._take_events() if not isinstance(event, UnknownFrame)]

    def prove(self, proof: Prove | Register) -> None:
        """Queue the proof. The caller's duty: once, after `Welcome`.

        Raises RemoteProtocolError: not the moment for it.
        """
        if self._proof_sent:
            raise RemoteProtocolError("the proof has been sent")
        self._move(Move.PROOF)
        self._proof_sent = True
        self._queue([proof])

    def send(self, frames: Sequence[ClientFrame]) -> None:
        """Queue *frames* as one WebSocket message, behind the proof.

        Raises RemoteProtocolError: before the proof, or on a closed link.
        """
        if not self._proof_sent or self._state is State.CLOSED:
            raise RemoteProtocolError("the link is not open")
        self._queue(frames)


def _client_move(frame: RelayFrame) -> Move:
    match frame:
        case Welcome():
            return Move.WELCOME
        case Proved():
            return Move.PROVED
        case Bye():
            return Move.BYE
        case Refused(id=0):
            return Move.REJECTED
        case _:
            return Move.FRAME
