"""From the outbox to the relay: in order, under a lock that all processes of this agent share; ratchet saved first."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from aimessage.client import fates
from aimessage.client.account import Here
from aimessage.client.links import OpenLink
from aimessage.client.locks import file_lock
from aimessage.client.pins import pin_of
from aimessage.client.sessions import begin_session
from aimessage.client.transaction import Peer, Transaction
from aimessage.e2ee.bodies import decode_body, encode_body
from aimessage.e2ee.fingerprint import require_match
from aimessage.e2ee.identity import Identity
from aimessage.errors import AimessageError, PeerIdentityChanged, RecipientUnknown
from aimessage.types import MessageId, Username
from aimessage.wire.frames import Accepted, MailClass, Post

__all__ = ["work_off"]

_LATEST_MS = 1 << 50  # what a relay may say of a time
_MOST_BYTES = 512 << 10  # sealed and on their way in one turn


class _Row(NamedTuple):
    id: MessageId
    attempt: int
    mail_class: int
    expires_at: int
    sealed: bytes
    body: bytes | None


async def work_off(here: Here, link: OpenLink, recipient: Username, *, patient: bool = True) -> None:
    """Send all that waits for *recipient*: control mail first, then messages in order.

    A row whose self-certifying address names another key is settled as refused before anything is agreed with that
    key; so is one that the relay refuses for good: its fate tells.

    Raises PeerIdentityChanged; RecipientUnknown: its rows are dropped; a temporary refusal, and the row stays;
    VaultUnavailable: another process sends to *recipient*, and the caller is not *patient*.
    """
    async with file_lock(here.profile.directory / "locks" / f"peer-{recipient}", here.waiting, patient=patient):
        try:
            await _ensure_session(here, link, recipient)
        except RecipientUnknown as error:
            _drop(here, recipient, error)
            raise
        for mail_class in (MailClass.CONTROL, MailClass.MESSAGE):  # a full mailbox stops messages, not receipts
            while rows := _next_rows(here, recipient, mail_class, link.room):
                await _post(here, link, recipient, rows)


async def _ensure_session(here: Here, link: OpenLink, recipient: Username) -> None:
    with here.vault.reading() as vault:
        if vault.peer(here.address(recipient)).conversation.can_send:
            return

    def wanted(vault: Transaction, peer: Peer, identity: Identity) -> bool:
        _refuse_misaddressed(here, vault, recipient, identity)
        return not peer.conversation.can_send and _waits(vault, recipient)

    await begin_session(here, link, recipient, wanted)


def _waits(vault: Transaction, recipient: Username) -> bool:
    return vault.run("SELECT 1 FROM outbox WHERE peer = ? LIMIT 1", (recipient,)).fetchone() is not None


def _refuse_misaddressed(here: Here, vault: Transaction, recipient: Username, identity: Identity) -> None:
    """Settle every row whose self-certifying address names another key than *identity*."""
    rows = vault.run("SELECT id, prefix FROM outbox WHERE peer = ? AND prefix IS NOT NULL", (recipient,)).fetchall()
    for message_id, prefix in rows:
        try:
            require_match(prefix, identity)
        except PeerIdentityChanged as error:
            fates.settle(here, vault, MessageId(message_id), "refused", error.code)


def _next_rows(here: Here, recipient: Username, mail_class: MailClass, count: int) -> list[_Row]:
    """Return the oldest rows for *recipient*, sealed: ratchets and bytes are saved in one commit before any leaves."""
    with here.vault.transaction() as vault:
        peer = vault.peer(here.address(recipient))
        if peer.conversation.identity is not None:  # in this transaction: another process may just have added a row
            _refuse_misaddressed(here, vault, recipient, peer.conversation.identity)
        found = vault.run(
            "SELECT id, attempt, mail_class, expires_at, sealed, body FROM outbox "
            "WHERE peer = ? AND mail_class = ? ORDER BY row LIMIT ?",
            (recipient, int(mail_class), count),
        )
        before, offset = peer.conversation, vault.counter("relay_offset")
        rows: list[_Row] = []
        for row in map(_Row._make, found.fetchall()):
            sealed = row if row.sealed else _seal(vault, peer, row, here)
            rows.append(sealed._replace(expires_at=_by_the_relays_clock(row, offset)))
            if sum(len(each.sealed) for each in rows) > _MOST_BYTES:
                break
        if peer.conversation is not before:
            vault.save_peer(peer)
    return rows


def _by_the_relays_clock(row: _Row, offset: int) -> int:
    """Return when the relay may drop this: a clock of ours that is wrong must not end it early."""
    if row.mail_class == MailClass.CONTROL or not row.expires_at:
        return 0  # the relay's own bound
    return max(1, row.expires_at + offset)


def _seal(vault: Transaction, peer: Peer, row: _Row, here: Here) -> _Row:
    if row.body is not None:
        body = vault.unseal("outbox.body", row.id, row.body)
    else:
        body = _numbered(vault, peer, row.id)
        # Believe a receipt, and honour a retry, of exactly the identity that this is sealed for.
        vault.run("UPDATE sent SET pin = ? WHERE id = ?", (pin_of(peer.conversation.identity), row.id))
    peer.conversation, sealed = peer.conversation.seal(row.id, row.attempt, body, entropy=here.entropy)
    vault.run("UPDATE outbox SET sealed = ?, body = NULL WHERE id = ?", (sealed, row.id))
    return row._replace(sealed=sealed)


def _numbered(vault: Transaction, peer: Peer, message_id: MessageId) -> bytes:
    """Return the padded body of a message, with its place in our order; a second attempt keeps the first one's."""
    (stored,) = vault.run("SELECT body FROM sent WHERE id = ?", (message_id,)).fetchone()
    padded = vault.unseal("sent.body", message_id, stored)
    body = decode_body(padded)
    if body.sequence:
        return padded
    # Only now, not when it was saved: what is given up before it leaves must not look like a loss to the recipient.
    peer.sent_sequence += 1
    padded = encode_body(msgspec.structs.replace(body, vault_id=vault.vault_id(), sequence=peer.sent_sequence))
    vault.run("UPDATE sent SET body = ? WHERE id = ?", (vault.seal("sent.body", message_id, padded), message_id))
    return padded


async def _post(here: Here, link: OpenLink, recipient: Username, rows: Sequence[_Row]) -> None:
    """Hand *rows* to the relay, all in one turn, and settle in one commit what it said of each.

    Raises the first error that leaves its row in the outbox: nobody knows what became of it, or it may be sent again.
    """

    def post(row: _Row) -> Callable[[int], Post]:
        return lambda request_id: Post(
            request_id, recipient, row.id, row.attempt, row.mail_class, row.expires_at, row.sealed
        )

    counted = rows[0].mail_class != MailClass.CONTROL
    answers = await link.request_all([post(row) for row in rows], Accepted, counted=counted)
    open_errors = [each for each in answers if isinstance(each, AimessageError) and (each.retryable or link.is_lost)]
    with here.vault.transaction() as vault:
        for row, answer in zip(rows, answers, strict=True):
            if not isinstance(answer, AimessageError):
                fates.settle(here, vault, row.id, "accepted")
                relay_due = min(answer.expires_at, _LATEST_MS)
                if relay_due > 0:
                    vault.run("UPDATE sent SET relay_due = ? WHERE id = ?", (relay_due, row.id))
            elif answer not in open_errors:
                # Its own sender asks for its fate; those behind it in the line are not to blame.
                fates.settle(here, vault, row.id, "refused", answer.code)
    if open_errors:
        raise open_errors[0]


def _drop(here: Here, recipient: Username, error: AimessageError) -> None:
    with here.vault.transaction() as vault:
        rows = vault.run("SELECT id FROM outbox WHERE peer = ?", (recipient,)).fetchall()
        for (message_id,) in rows:
            fates.settle(here, vault, MessageId(message_id), "refused", error.code)
