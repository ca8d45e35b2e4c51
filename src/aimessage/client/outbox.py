"""Save, then send: a message is in the vault before anything leaves, and a retry sends the same bytes and id."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from aimessage.client.account import Here, file_lock
from aimessage.client.contacts import require_pinned
from aimessage.client.link import Link
from aimessage.client.vault import Transaction
from aimessage.clock import milliseconds
from aimessage.e2ee.bodies import Body, encode_body
from aimessage.e2ee.fingerprint import require_match
from aimessage.e2ee.identity import Identity
from aimessage.e2ee.prekeys import identity_of, verify_bundle, verify_pair
from aimessage.e2ee.text import require_clean
from aimessage.errors import AimessageError, EmptyMessage, PeerIdentityChanged, RecipientUnknown, error_from_code
from aimessage.types import MessageId, Username, parse_message_id
from aimessage.wire.frames import Accepted, BundleAnswer, FetchBundle, MailClass, Post

__all__ = ["Letter", "abandon", "require_accepted", "save", "waiting_peers", "work_off"]

_LIFE = timedelta(days=30)
_REFUSALS = {
    PeerIdentityChanged.code: "the key of this name is not the one in the address; nothing was sent",
}


@dataclass(frozen=True, slots=True)
class Letter:
    """What one send says, apart from to whom; *text* or *data*, not both."""

    text: str | None = None
    data: object = None
    thread: str | None = None
    reply_to: str | None = None
    ttl: timedelta | None = None
    expects_reply: bool = True

    def body(self, vault_id: bytes, sequence: int, now_ms: int) -> Body:
        """Return the body. Raises EmptyMessage, TextNotAllowed, BadValue."""
        text, data, thread = self._sayable()
        return Body(
            kind="data" if data else "text",
            vault_id=vault_id,
            sequence=sequence,
            sent_at=now_ms,
            text=text,
            data=data,
            thread=thread,
            reply_to=parse_message_id(self.reply_to) if self.reply_to else b"",
            expires_at=now_ms + self.ttl // timedelta(milliseconds=1) if self.ttl else 0,
            expects_reply=self.expects_reply,
        )

    def _sayable(self) -> tuple[str, str, str]:
        data = "" if self.data is None else json.dumps(self.data, ensure_ascii=False)
        parts = (self.text or "", data, self.thread or "")
        if not (parts[0] or data):
            raise EmptyMessage("the message is empty")
        for part in parts:
            require_clean(part)
        return parts


def save(here: Here, recipient: Username, letter: Letter, *, prefix: str | None = None) -> MessageId:
    """Commit one message to the outbox and return its id; nothing has left.

    *prefix* is the fingerprint of a self-certifying address; it stays with the row, whichever command sends it.

    Raises what `Letter.body` does, and TooLarge.
    """
    now_ms = milliseconds(here.clock.now())
    with here.vault.transaction() as vault:
        peer = vault.peer(here.address(recipient))
        peer.sent_sequence += 1
        body = letter.body(vault.vault_id(), peer.sent_sequence, now_ms)
        message_id = MessageId(here.entropy(16))
        padded = vault.seal("sent.body", message_id, encode_body(body))
        expires_at = body.expires_at or now_ms + _LIFE // timedelta(milliseconds=1)
        vault.save_peer(peer)
        vault.run(
            "INSERT INTO sent (id, peer, fate, changed_at, expires_at, body) VALUES (?, ?, 'waiting', ?, ?, ?)",
            (message_id, recipient, now_ms, expires_at, padded),
        )
        vault.run(
            "INSERT INTO outbox (id, peer, attempt, mail_class, expires_at, sealed, prefix) "
            "VALUES (?, ?, 0, ?, ?, x'', ?)",
            (message_id, recipient, int(MailClass.MESSAGE), body.expires_at, prefix),
        )
    return message_id


def waiting_peers(here: Here) -> list[Username]:
    """Return the peers to whom something waits to be sent, the longest waiting first."""
    with here.vault.transaction() as vault:
        rows = vault.run("SELECT peer FROM outbox GROUP BY peer ORDER BY min(row)").fetchall()
    return [Username(name) for (name,) in rows]


def require_accepted(here: Here, message_id: MessageId) -> None:
    """Return nothing if the message has been accepted, by whichever process sent it.

    Raises what the relay refused it with.
    """
    with here.vault.transaction() as vault:
        fate, code = vault.run("SELECT fate, code FROM sent WHERE id = ?", (message_id,)).fetchone()
    if fate == "refused":
        raise error_from_code(code, _REFUSALS.get(code, f"the message was refused: {code}"))


def abandon(here: Here, message_id: MessageId, error: AimessageError) -> bool:
    """Give a message up that cannot be sent as it is; its fate says why. Return whether that was still possible.

    One that was sealed for the wire may have left: it keeps its row, its bytes and its id.
    """
    with here.vault.transaction() as vault:
        sealed = vault.run("SELECT length(sealed) FROM outbox WHERE id = ?", (message_id,)).fetchone()
        if sealed is None or sealed[0]:
            return sealed is None
        _settle(here, vault, message_id, "refused", error.code)
    return True


class _Row(NamedTuple):
    id: MessageId
    attempt: int
    mail_class: int
    expires_at: int
    sealed: bytes


async def work_off(here: Here, link: Link, recipient: Username) -> None:
    """Send all that waits for *recipient*, in order, under a lock that all processes of this agent share.

    A row whose self-certifying address names another key is settled as refused before anything is agreed with that
    key; so is one that the relay refuses for good: `require_accepted` tells.

    Raises PeerIdentityChanged; RecipientUnknown: its rows are dropped; a temporary refusal, and the row stays.
    """
    async with file_lock(here.profile.directory / "locks" / f"peer-{recipient}"):
        try:
            await _ensure_session(here, link, recipient)
        except RecipientUnknown as error:
            _drop(here, recipient, error)
            raise
        while (row := _next_row(here, recipient)) is not None:
            await _post(here, link, recipient, row)


async def _ensure_session(here: Here, link: Link, recipient: Username) -> None:
    with here.vault.transaction() as vault:
        peer = vault.peer(here.address(recipient))
    if peer.conversation.can_send:
        return
    answer = await link.request(lambda request_id: FetchBundle(request_id, recipient), BundleAnswer)
    now = here.clock.now()
    bundle = verify_bundle(answer.bundle, here.address(recipient), now=now, least_epoch=peer.epoch)
    pair = verify_pair(answer.pair, bundle) if answer.pair else None
    with here.vault.transaction() as vault:
        _refuse_misaddressed(here, vault, recipient, identity_of(bundle))
        peer = vault.peer(here.address(recipient))
        if peer.conversation.can_send or not _waits(vault, recipient):
            return  # nothing is left that this key may have: it is not pinned either
        require_pinned(peer, identity_of(bundle))
        peer.conversation = peer.conversation.start(
            here.account, bundle, pair, epoch=vault.counter("epoch"), now=now, entropy=here.entropy
        )
        peer.epoch = bundle.epoch
        vault.save_peer(peer)


def _waits(vault: Transaction, recipient: Username) -> bool:
    return vault.run("SELECT 1 FROM outbox WHERE peer = ? LIMIT 1", (recipient,)).fetchone() is not None


def _refuse_misaddressed(here: Here, vault: Transaction, recipient: Username, identity: Identity) -> None:
    """Settle every row whose self-certifying address names another key than *identity*."""
    rows = vault.run("SELECT id, prefix FROM outbox WHERE peer = ? AND prefix IS NOT NULL", (recipient,)).fetchall()
    for message_id, prefix in rows:
        try:
            require_match(prefix, identity)
        except PeerIdentityChanged as error:
            _settle(here, vault, MessageId(message_id), "refused", error.code)


def _next_row(here: Here, recipient: Username) -> _Row | None:
    """Return the oldest row for *recipient*, sealed: ratchet and bytes are saved in one commit before it is posted."""
    with here.vault.transaction() as vault:
        peer = vault.peer(here.address(recipient))
        if peer.conversation.identity is not None:  # in this transaction: another process may just have added a row
            _refuse_misaddressed(here, vault, recipient, peer.conversation.identity)
        found = vault.run(
            "SELECT id, attempt, mail_class, expires_at, sealed FROM outbox WHERE peer = ? ORDER BY row LIMIT 1",
            (recipient,),
        ).fetchone()
        if found is None:
            return None
        row = _Row(*found)
        if row.sealed:
            return row
        (stored,) = vault.run("SELECT body FROM sent WHERE id = ?", (row.id,)).fetchone()
        body = vault.unseal("sent.body", row.id, stored)
        peer.conversation, sealed = peer.conversation.seal(row.id, row.attempt, body, entropy=here.entropy)
        vault.save_peer(peer)
        vault.run("UPDATE outbox SET sealed = ? WHERE id = ?", (sealed, row.id))
        return row._replace(sealed=sealed)


async def _post(here: Here, link: Link, recipient: Username, row: _Row) -> None:
    def post(request_id: int) -> Post:
        return Post(request_id, recipient, row.id, row.attempt, row.mail_class, row.expires_at, row.sealed)

    fate, code = "accepted", None
    try:
        await link.request(post, Accepted)
    except AimessageError as error:
        if error.retryable or link.lost.done():
            raise  # no answer came: the relay may have it, so the row stays, and its bytes and id with it
        # Its own sender asks for its fate; those behind it in the line are not to blame.
        fate, code = "refused", error.code
    with here.vault.transaction() as vault:
        _settle(here, vault, row.id, fate, code)


def _settle(here: Here, vault: Transaction, message_id: MessageId, fate: str, code: str | None) -> None:
    vault.run("DELETE FROM outbox WHERE id = ?", (message_id,))
    vault.run(
        "UPDATE sent SET fate = ?, code = ?, changed_at = ? WHERE id = ?",
        (fate, code, milliseconds(here.clock.now()), message_id),
    )


def _drop(here: Here, recipient: Username, error: AimessageError) -> None:
    with here.vault.transaction() as vault:
        vault.run(
            "UPDATE sent SET fate = 'refused', code = ? WHERE id IN (SELECT id FROM outbox WHERE peer = ?)",
            (error.code, recipient),
        )
        vault.run("DELETE FROM outbox WHERE peer = ?", (recipient,))
