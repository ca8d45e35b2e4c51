"""All sessions with one peer, as one immutable value: which may send, which only receive, and how one replaces another.

Spec: docs/spec/handshake.md §5.
"""

from datetime import datetime
from typing import Self

import msgspec

from aimessage.clock import milliseconds
from aimessage.crypto.random import Entropy
from aimessage.e2ee.handshake import PrekeyPart, initiate, respond
from aimessage.e2ee.header import SESSION_ID_BYTES, Header
from aimessage.e2ee.identity import Account, Identity, verify_statement
from aimessage.e2ee.ratchet import Ratchet
from aimessage.e2ee.stores import PrekeySecrets
from aimessage.errors import DecryptionFailed, MalformedOctets
from aimessage.octets import u8, u16
from aimessage.types import Address, MessageId, RelayId, Username
from aimessage.wire.bundles import Bundle, OneTimePair

__all__ = ["MAX_SESSIONS", "Conversation", "Envelope", "Opened", "peek_identity"]

MAX_SESSIONS = 5
_FROM_INITIATOR, _FROM_RESPONDER = 0, 1
_EPOCH_SHIFT = 20  # a million sessions between two epochs
_HIGHEST_ORDER = 1 << 62
_ATTEMPTS = range(1 << 16)


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A sealed message as the relay delivered it."""

    sender: Username
    message_id: MessageId
    attempt: int
    sealed: bytes


class Session(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One end-to-end session. *prekey* is sent along until the peer has answered."""

    session_id: bytes
    initiated: bool
    associated_data: bytes
    signing_key: bytes
    agreement_key: bytes
    ratchet: Ratchet
    prekey: bytes = b""
    receive_only: bool = False

    @property
    def identity(self) -> Identity:
        """The peer's identity in this session."""
        return Identity(self.signing_key, self.agreement_key)

    def bound(self, *, ours: bool, message_id: MessageId, attempt: int) -> bytes:
        """Return what is authenticated in front of the header of a message that is *ours* or theirs."""
        direction = _FROM_INITIATOR if ours == self.initiated else _FROM_RESPONDER
        return self.associated_data + u8(direction) + message_id + u16(attempt)


class Conversation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All sessions with one peer, the sending one first.

    *lead* is the highest order of a session that either side started, as far as we know, and *lead_id* that session's
    id: of equals the smaller id is the higher. Both sides know the same order, so both end in the same session.
    """

    relay_id: bytes
    username: str
    sessions: tuple[Session, ...] = ()
    lead: int = 0
    lead_id: bytes = b""

    @classmethod
    def empty(cls, peer: Address) -> Self:
        """Return a conversation with nothing in it."""
        return cls(peer.relay_id, peer.username)

    @property
    def peer(self) -> Address:
        """The other agent's address."""
        return Address(RelayId(self.relay_id), Username(self.username))

    @property
    def can_send(self) -> bool:
        """Whether a session may send; if not, `start` one."""
        return self._sending is not None

    @property
    def identity(self) -> Identity | None:
        """The peer's identity in the session that sends."""
        return self._sending.identity if self._sending else None

    @property
    def _sending(self) -> Session | None:
        for each in self.sessions:
            if not each.receive_only and each.ratchet.can_send:
                return each
        return None

    def dump(self) -> bytes:
        """Return the conversation as the vault keeps it; secret."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def load(cls, octets: bytes) -> Self:
        """Return what `dump` wrote. Raises MalformedOctets."""
        try:
            return msgspec.msgpack.decode(octets, type=cls)
        except msgspec.DecodeError:
            raise MalformedOctets("the stored conversation is malformed") from None

    def start(
        self, account: Account, bundle: Bundle, pair: OneTimePair | None, *, epoch: int, now: datetime, entropy: Entropy
    ) -> Self:
        """Return the conversation with a new session that sends; the others only receive from now on.

        *bundle* and *pair* have been verified; *epoch* is our own bundle's.
        """
        # Above all that we know; and, whatever a lost vault has forgotten, above all that older prekeys began.
        order = max(self.lead + 1, (epoch + bundle.epoch) << _EPOCH_SHIFT)
        if order >= _HIGHEST_ORDER:
            raise DecryptionFailed("the session's order is out of range")
        agreement, part = initiate(account, bundle, pair, order=order, entropy=entropy)
        session = Session(
            session_id=entropy(SESSION_ID_BYTES),
            initiated=True,
            associated_data=agreement.associated_data,
            signing_key=agreement.identity.signing_key,
            agreement_key=agreement.identity.agreement_key,
            ratchet=Ratchet.initiator(
                agreement.secret, bundle.signed_prekey, now_ms=milliseconds(now), entropy=entropy
            ),
            prekey=part.encode(),
        )
        retired = self.retire()
        sessions = (session, *retired.sessions)[:MAX_SESSIONS]
        return msgspec.structs.replace(retired, sessions=sessions, lead=order, lead_id=session.session_id)

    def seal(self, message_id: MessageId, attempt: int, body: bytes, *, entropy: Entropy) -> tuple[Self, bytes]:
        """Return the next conversation and the sealed *body*. The caller's duty: `can_send`; save, then send."""
        session = self._sending
        if session is None:
            raise DecryptionFailed("there is no session to send in")
        bound = session.bound(ours=True, message_id=message_id, attempt=attempt)
        ratchet, sealed = session.ratchet.seal(session.session_id, body, bound, prekey=session.prekey, entropy=entropy)
        return self._with(session, msgspec.structs.replace(session, ratchet=ratchet)), sealed

    def open(
        self, account: Account, envelope: Envelope, prekeys: PrekeySecrets, *, now: datetime, entropy: Entropy
    ) -> "Opened":
        """Return the next conversation and the body. Whether to believe `Opened.identity` is the caller's question.

        The caller keeps the ids of what was opened for as long as it keeps prekey secrets: a first message that was
        sealed without a one-time pair would open again once its session has been dropped.

        Raises DecryptionFailed: whatever the cause; *self* is still the truth.
        """
        if envelope.sender != self.username or envelope.attempt not in _ATTEMPTS:
            raise DecryptionFailed("the envelope is not of this conversation")
        header, part, ciphertext = Header.split(envelope.sealed)
        known = self._of(header.session_id)
        used_pair = None
        if known is None:
            if part is None:
                raise DecryptionFailed("the message belongs to no session that we have")
            if part.order >= _HIGHEST_ORDER:
                raise DecryptionFailed("the session's order is out of range")
            session, used_pair = _answer(account, self.peer, header, part, prekeys, milliseconds(now))
        else:
            session = known
        bound = session.bound(ours=False, message_id=envelope.message_id, attempt=envelope.attempt)
        ratchet, body = session.ratchet.open(header, ciphertext, bound, now_ms=milliseconds(now), entropy=entropy)
        opened = msgspec.structs.replace(session, ratchet=ratchet, prekey=b"")
        if known is not None:
            following = self._with(known, opened)
        else:
            assert part is not None  # noqa: S101 - the branch above has raised without it
            following = self._welcome(opened, part.order)
        return Opened(following, body, session.identity, used_pair)

    def retire(self) -> Self:
        """Return the conversation with every session receive-only: a retry, or a new vault id."""
        return msgspec.structs.replace(self, sessions=tuple(map(_receive_only, self.sessions)))

    def _of(self, session_id: bytes) -> Session | None:
        for each in self.sessions:
            if each.session_id == session_id:
                return each
        return None

    def _with(self, old: Session, new: Session) -> Self:
        sessions = tuple([new if each is old else each for each in self.sessions])
        return msgspec.structs.replace(self, sessions=sessions)

    def _welcome(self, session: Session, order: int) -> Self:
        """Place a session that the peer started and that has just opened its first message."""
        if order < self.lead or (order == self.lead and session.session_id > self.lead_id):
            # Withheld and overtaken, or started at the same time as a higher one: it may speak, but not lead.
            sessions = (*self.sessions[: MAX_SESSIONS - 1], _receive_only(session))
            return msgspec.structs.replace(self, sessions=sessions)
        sessions = (session, *map(_receive_only, self.sessions))[:MAX_SESSIONS]
        return msgspec.structs.replace(self, sessions=sessions, lead=order, lead_id=session.session_id)


class Opened(msgspec.Struct, frozen=True, gc=False):
    """What opening gave: save the conversation, delete the used pair's secrets, and only then ack.

    *used_pair* is the reference (32 bytes) of the one-time pair that this session consumed.
    """

    conversation: Conversation
    body: bytes
    identity: Identity
    used_pair: bytes | None


def peek_identity(account: Account, envelope: Envelope) -> Identity | None:
    """Return the identity that a prekey header states, its signature checked; None where there is no such part.

    Raises DecryptionFailed: malformed, or the statement is not of the envelope's sender.
    """
    _, part, _ = Header.split(envelope.sealed)
    if part is None:
        return None
    verify_statement(part.identity, Address(account.address.relay_id, envelope.sender), part.statement)
    return part.identity


def _answer(
    account: Account, peer: Address, header: Header, part: PrekeyPart, prekeys: PrekeySecrets, now_ms: int
) -> tuple[Session, bytes | None]:
    bundle = prekeys.bundle(part.bundle_reference)
    pair = prekeys.pair(part.pair_reference) if part.pair_reference else None
    if bundle is None or (part.pair_reference and pair is None):
        raise DecryptionFailed("the message was sealed for prekeys that are gone")
    agreement = respond(account, peer, part, bundle, pair)
    session = Session(
        session_id=header.session_id,
        initiated=False,
        associated_data=agreement.associated_data,
        signing_key=agreement.identity.signing_key,
        agreement_key=agreement.identity.agreement_key,
        ratchet=Ratchet.responder(agreement.secret, bundle.signed_prekey, now_ms=now_ms),
    )
    return session, part.pair_reference


def _receive_only(session: Session) -> Session:
    return msgspec.structs.replace(session, receive_only=True)
