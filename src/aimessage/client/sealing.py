"""The ratchet's part of sending: what waits is sealed in the order in which it was saved, and kept before it leaves."""

from collections.abc import Callable, Sequence

import msgspec

from aimessage.client import fates
from aimessage.client.account import Here
from aimessage.client.owed import Owed, owed_to, report_of, were_told
from aimessage.client.pins import pin_of
from aimessage.client.transaction import Peer, Transaction
from aimessage.e2ee.bodies import Body, decode_body, encode_body, spare_bytes
from aimessage.e2ee.fingerprint import require_match
from aimessage.e2ee.identity import Identity
from aimessage.e2ee.reports import receipts_within
from aimessage.errors import PeerIdentityChanged
from aimessage.types import MessageId, Username
from aimessage.wire.frames import MailClass

__all__ = ["Line", "Lot", "Row", "open_line", "refuse_misaddressed", "seal_waiting", "take_ready", "take_sealed"]

_MOST_BYTES = 512 << 10  # sealed and on their way in one turn
_UNSEALED_BYTES = 4 << 10
_TAKEN_ALONG = 64  # receipts: more than the longest padding holds


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of the outbox; *body* is that of control mail that is not sealed yet, *prefix* a fingerprint's."""

    row: int
    id: MessageId
    attempt: int
    mail_class: int
    expires_at: int
    sealed: bytes
    body: bytes | None
    prefix: str | None


class Line:
    """What one commit saves for one recipient and seals at once: whatever was saved before it is sealed already."""

    def __init__(self, vault: Transaction, peer: Peer) -> None:
        self._vault = vault
        self._peer = peer
        self._vault_id = vault.vault_id()
        self.pin = pin_of(peer.conversation.identity)
        self._owed = owed_to(vault, peer.name, _TAKEN_ALONG)
        self._told: list[Owed] = []

    def seal(self, message_id: MessageId, body: Body) -> tuple[bytes, bytes]:
        """Return the padded body in its place of our order, and that sealed for the wire."""
        peer = self._peer
        peer.sent_sequence += 1
        body = msgspec.structs.replace(body, vault_id=self._vault_id, sequence=peer.sent_sequence)
        if self._owed and not body.expires_at:  # a message that ends early would take them with it
            body = self._with_receipts(body)
        padded = encode_body(body)
        peer.conversation, sealed = peer.conversation.seal(message_id, 0, padded, entropy=self._vault.draw)
        return padded, sealed

    def _with_receipts(self, body: Body) -> Body:
        """Return *body* with as many receipts as its padding has room for: it is not longer on its way."""
        count = receipts_within(spare_bytes(body))
        told, self._owed = self._owed[:count], self._owed[count:]
        self._told += told
        return msgspec.structs.replace(body, report=report_of(told)) if told else body

    def end(self) -> None:
        """Keep how far the session has gone and which receipts went along, in the commit that keeps what was sealed."""
        self._vault.save_peer(self._peer)
        if self._told:
            were_told(self._vault, self._peer.name, self._told)


def open_line(here: Here, vault: Transaction, recipient: Username) -> Line | None:
    """Return the line to *recipient*; None if something waits before it, or there is no session to seal in."""
    last = vault.run(
        "SELECT sealed = x'' FROM outbox WHERE peer = ? AND mail_class = ? ORDER BY row DESC LIMIT 1",
        (recipient, int(MailClass.MESSAGE)),
    ).fetchone()
    if last is not None and last[0]:
        return None
    peer = vault.peer(here.address(recipient))
    return Line(vault, peer) if peer.conversation.can_send else None


def refuse_misaddressed(here: Here, vault: Transaction, recipient: Username, identity: Identity) -> None:
    """Settle every row whose self-certifying address names another key than *identity*."""
    rows = vault.run("SELECT id, prefix FROM outbox WHERE peer = ? AND prefix IS NOT NULL", (recipient,)).fetchall()
    for message_id, prefix in rows:
        try:
            require_match(prefix, identity)
        except PeerIdentityChanged as error:
            fates.settle(here, vault, MessageId(message_id), "refused", error.code)


class Lot(msgspec.Struct, frozen=True, gc=False):
    """Rows of one class that leave together. If they are not *ready*, `take_sealed` has to look at them first."""

    mail_class: MailClass
    rows: list[Row]
    ready: bool = True


def take_ready(here: Here, recipient: Username, room: Callable[[MailClass], int]) -> Lot | None:
    """Return the oldest rows for *recipient* as they leave, control mail first; None if nothing waits.

    *room* tells how many of a class may leave at once.
    """
    with here.vault.reading() as vault:
        found = vault.run("SELECT max(mail_class) FROM outbox WHERE peer = ?", (recipient,)).fetchone()[0]
        if found is None:
            return None
        mail_class = MailClass(found)
        rows = _oldest(vault, recipient, mail_class, room(mail_class))
        offset = _offset(vault, rows)
    if any(row.prefix is not None or not row.sealed for row in rows):
        return Lot(mail_class, rows, ready=False)
    return Lot(mail_class, _leaving(rows, offset))


def take_sealed(here: Here, recipient: Username, mail_class: MailClass, count: int) -> list[Row]:
    """Return the oldest rows for *recipient*, sealed: ratchets and bytes are saved in one commit before any leaves.

    Those whose self-certifying address names another key are settled as refused. The caller's duty: a session.
    """
    with here.vault.transaction() as vault:
        offset = vault.counter("relay_offset")
        rows = seal_waiting(here, vault, recipient, mail_class, count)
    return _leaving(rows, offset)


def _offset(vault: Transaction, rows: Sequence[Row]) -> int:
    """Return how far the relay's clock is ahead of ours, in milliseconds, if one of *rows* has to be told by it."""
    return vault.counter("relay_offset") if any(row.expires_at for row in rows) else 0


def _leaving(rows: Sequence[Row], offset: int) -> list[Row]:
    return [msgspec.structs.replace(row, expires_at=_by_the_relays_clock(row, offset)) for row in _within_bytes(rows)]


def seal_waiting(here: Here, vault: Transaction, recipient: Username, mail_class: MailClass, count: int) -> list[Row]:
    """Seal the oldest rows for *recipient*, in the caller's lasting transaction, and return them."""
    peer = vault.peer(here.address(recipient))
    if peer.conversation.identity is not None:  # in this transaction: another process may just have added a row
        refuse_misaddressed(here, vault, recipient, peer.conversation.identity)
    before = peer.conversation
    rows = [row if row.sealed else _seal(vault, peer, row)
            for row in _within_bytes(_oldest(vault, recipient, mail_class, count))]  # fmt: skip
    if peer.conversation is not before:
        vault.save_peer(peer)
    return rows


def _oldest(vault: Transaction, recipient: Username, mail_class: MailClass, count: int) -> list[Row]:
    found = vault.run(
        "SELECT row, id, attempt, mail_class, expires_at, sealed, body, prefix FROM outbox "
        "WHERE peer = ? AND mail_class = ? ORDER BY row LIMIT ?",
        (recipient, int(mail_class), count),
    )
    return [Row(*columns) for columns in found.fetchall()]


def _within_bytes(rows: Sequence[Row]) -> list[Row]:
    """Return as many of the first *rows* as go out in one turn; at least one. What is not sealed yet counts in full."""
    size, taken = 0, list[Row]()
    for row in rows:
        size += len(row.sealed) or _UNSEALED_BYTES
        if taken and size > _MOST_BYTES:
            break
        taken.append(row)
    return taken


def _by_the_relays_clock(row: Row, offset: int) -> int:
    """Return when the relay may drop this: a clock of ours that is wrong must not end it early."""
    if row.mail_class == MailClass.CONTROL or not row.expires_at:
        return 0  # the relay's own bound
    return max(1, row.expires_at + offset)


def _seal(vault: Transaction, peer: Peer, row: Row) -> Row:
    if row.body is not None:
        body = vault.unseal("outbox.body", row.id, row.body)
    else:
        body = _numbered(vault, peer, row.id)
        # Believe a receipt, and honour a retry, of exactly the identity that this is sealed for.
        vault.run("UPDATE sent SET pin = ? WHERE id = ?", (pin_of(peer.conversation.identity), row.id))
    peer.conversation, sealed = peer.conversation.seal(row.id, row.attempt, body, entropy=vault.draw)
    vault.run("UPDATE outbox SET sealed = ?, body = NULL WHERE id = ?", (sealed, row.id))
    return msgspec.structs.replace(row, sealed=sealed)


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
