"""Commit, then ack: decryption, the inbox row, the ratchet and the seen id are one transaction; showing comes after."""

import json
from collections.abc import Iterator

import msgspec

from aimessage.client.account import Here
from aimessage.client.contacts import is_pinned
from aimessage.client.message import Message, timestamp
from aimessage.client.vault import Transaction
from aimessage.clock import milliseconds
from aimessage.e2ee.bodies import Body, decode_body
from aimessage.e2ee.fingerprint import fingerprint
from aimessage.e2ee.session import Envelope
from aimessage.e2ee.text import reveal
from aimessage.errors import AimessageError, DecryptionFailed, MalformedOctets
from aimessage.types import MessageId, Username, message_id_text, parse_username
from aimessage.wire.frames import Deliver

__all__ = ["mark_shown", "take_in", "unshown"]


class _Content(msgspec.Struct, frozen=True, array_like=True):
    """What the inbox keeps of a message, sealed at rest."""

    body: Body | None
    sealed: bytes
    fingerprint: str = ""
    trust: str = "first-use"


def take_in(here: Here, delivery: Deliver) -> None:
    """Give one delivery its one effect; a duplicate has none. When it returns, the relay's copy may go."""
    envelope = _envelope(delivery)
    if envelope is None:
        return
    with here.vault.transaction() as vault:
        if vault.has_seen(envelope.sender, envelope.message_id):
            return
        _open(here, vault, envelope)


def _envelope(delivery: Deliver) -> Envelope | None:
    try:
        sender = parse_username(delivery.sender)
    except AimessageError:
        return None  # no agent has such a name: the relay made it up
    if len(delivery.message_id) != 16 or not 0 <= delivery.attempt < 1 << 16:
        return None
    return Envelope(sender, MessageId(delivery.message_id), delivery.attempt, delivery.sealed)


def _open(here: Here, vault: Transaction, envelope: Envelope) -> None:
    peer = vault.peer(here.address(envelope.sender))
    try:
        opened = peer.conversation.open(here.account, envelope, vault, now=here.clock.now(), entropy=here.entropy)
        body = decode_body(opened.body)
    except (DecryptionFailed, MalformedOctets):
        _keep_unopened(here, vault, envelope, "undecryptable", "new")
        return
    if not is_pinned(peer, opened.identity):
        # Quarantined as it came, and never shown: nothing of this conversation may follow from a changed key.
        _keep_unopened(here, vault, envelope, "message", "quarantined")
        return
    peer.conversation = opened.conversation
    vault.save_peer(peer)
    if opened.used_pair:
        vault.erase_pair(opened.used_pair)
    vault.mark_seen(envelope.sender, envelope.message_id)
    if not body.is_control:
        content = _Content(body, b"", fingerprint(opened.identity), peer.trust)
        _insert(here, vault, envelope, "message", "new", content)


def _keep_unopened(here: Here, vault: Transaction, envelope: Envelope, kind: str, state: str) -> None:
    known = vault.run(
        "SELECT 1 FROM inbox WHERE sender = ? AND id = ? AND attempt = ?",
        (envelope.sender, envelope.message_id, envelope.attempt),
    ).fetchone()
    if not known:
        _insert(here, vault, envelope, kind, state, _Content(None, envelope.sealed))


def _insert(here: Here, vault: Transaction, envelope: Envelope, kind: str, state: str, content: _Content) -> None:
    key = envelope.sender.encode() + envelope.message_id
    vault.run(
        "INSERT INTO inbox (sender, id, attempt, kind, state, received_at, content) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            envelope.sender,
            envelope.message_id,
            envelope.attempt,
            kind,
            state,
            milliseconds(here.clock.now()),
            vault.seal("inbox.content", key, msgspec.msgpack.encode(content)),
        ),
    )


def unshown(here: Here, *, sender: str | None = None, limit: int = 100) -> list[tuple[int, Message]]:
    """Return up to *limit* rows that no consumer has been shown yet, oldest first, and say whether more wait."""
    with here.vault.transaction() as vault:
        rows = vault.run(
            "SELECT row, sender, id, kind, received_at, content FROM inbox "
            "WHERE state = 'new' AND (?1 IS NULL OR sender = ?1) ORDER BY row LIMIT ?2",
            (sender, limit + 1),
        ).fetchall()
        found = []
        for at, (row, name, message_id, kind, received_at, sealed) in enumerate(rows[:limit]):
            octets = vault.unseal("inbox.content", name.encode() + message_id, sealed)
            content = msgspec.msgpack.decode(octets, type=_Content)
            frame = (row, Username(name), MessageId(message_id), kind, received_at)
            found.append((row, _message(here, frame, content, more=at + 1 < len(rows))))
    return found


def mark_shown(here: Here, row: int) -> None:
    """A consumer has been shown this row."""
    with here.vault.transaction() as vault:
        vault.run("UPDATE inbox SET state = 'shown' WHERE row = ? AND state = 'new'", (row,))


def _message(here: Here, frame: tuple[int, Username, MessageId, str, int], content: _Content, *, more: bool) -> Message:
    row, sender, message_id, kind, received_at = frame
    body = content.body
    if body is None:
        return Message(
            id=message_id_text(message_id),
            cursor=str(row),
            from_=sender,
            from_fingerprint=None,
            from_trust="first-use",
            to=here.profile.username,
            received_at=timestamp(received_at),
            type=kind,
            flags=("undecryptable",),
            more_waiting=more,
        )
    shown = dict(_revealed(body))
    return Message(
        id=message_id_text(message_id),
        cursor=str(row),
        from_=sender,
        from_fingerprint=content.fingerprint,
        from_trust=content.trust,
        to=here.profile.username,
        received_at=timestamp(received_at),
        thread=shown["thread"][0] or None,
        reply_to=message_id_text(MessageId(body.reply_to)) if len(body.reply_to) == 16 else None,
        sent_at=timestamp(body.sent_at),
        expires_at=timestamp(body.expires_at),
        kind=body.kind,
        text=shown["text"][0] if body.kind == "text" else None,
        data=_json(shown["data"][0]),
        expects_reply=body.expects_reply,
        hops=body.hops,
        flags=("escaped",) if any(changed for _, changed in shown.values()) else (),
        bytes=len((body.text or body.data).encode()),
        more_waiting=more,
    )


def _revealed(body: Body) -> Iterator[tuple[str, tuple[str, bool]]]:
    # The sender's program promised AIM-TEXT-1; the sender may be another program.
    for name in ("text", "data", "thread"):
        value: str = getattr(body, name)
        yield name, reveal(value) if value else ("", False)


def _json(text: str) -> object:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text
