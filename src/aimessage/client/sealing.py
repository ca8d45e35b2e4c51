"""The ratchet's part of sending: what waits is sealed in the order in which it was saved, and kept before it leaves."""

from collections.abc import Callable, Sequence

import msgspec

from aimessage.client import batches, fates
from aimessage.client.account import Here
from aimessage.client.line import Entry, Line
from aimessage.client.pins import pin_of
from aimessage.client.transaction import Peer, Transaction
from aimessage.e2ee.bodies import MOST_PARTS, Body, decode_body, encode_body
from aimessage.e2ee.fingerprint import require_match
from aimessage.e2ee.identity import Identity
from aimessage.errors import PeerIdentityChanged
from aimessage.types import MessageId, Username
from aimessage.wire.frames import MailClass

__all__ = ["Lot", "Places", "Row", "open_line", "refuse_misaddressed", "seal_waiting", "take_ready", "take_sealed"]

_MOST_BYTES = 512 << 10  # sealed and on their way in one turn
_UNSEALED_BYTES = 4 << 10
_TOGETHER_MS = 60_000  # what shares an envelope was saved within this time, so that it ends at one time, too


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of the outbox; *body* is that of control mail that is not sealed yet, *prefix* a fingerprint's.

    *members* are the ids of a batch's messages, one behind the other.
    """

    row: int
    id: MessageId
    attempt: int
    mail_class: int
    expires_at: int
    sealed: bytes
    body: bytes | None
    prefix: str | None
    members: bytes | None

    @property
    def ids(self) -> list[MessageId]:
        """The messages in this envelope."""
        return [self.id] if self.members is None else batches.split(self.members)

    @property
    def may_share(self) -> bool:
        """Whether this message may travel with its neighbours: it has not been sealed, and nothing sets it apart."""
        is_first = not self.sealed and not self.attempt and self.mail_class == MailClass.MESSAGE
        return is_first and not self.expires_at and self.prefix is None and self.members is None


class Places(msgspec.Struct, frozen=True, gc=False):
    """How many envelopes of a class may leave at once, and the largest padded body that their link takes."""

    mail_class: MailClass
    count: int
    room: int


def open_line(here: Here, vault: Transaction, recipient: Username, room: int) -> Line | None:
    """Return the line to *recipient*; None if something waits before it, or there is no session to seal in."""
    last = vault.run(
        "SELECT sealed = x'' FROM outbox WHERE peer = ? AND mail_class = ? ORDER BY row DESC LIMIT 1",
        (recipient, int(MailClass.MESSAGE)),
    ).fetchone()
    if last is not None and last[0]:
        return None
    peer = vault.peer(here.address(recipient))
    return Line(vault, peer, room) if peer.conversation.can_send else None


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


def take_sealed(here: Here, recipient: Username, places: Places) -> list[Row]:
    """Return the oldest rows for *recipient*, sealed: ratchets and bytes are saved in one commit before any leaves.

    Those whose self-certifying address names another key are settled as refused. The caller's duty: a session.
    """
    with here.vault.transaction() as vault:
        offset = vault.counter("relay_offset")
        rows = seal_waiting(here, vault, recipient, places)
    return _leaving(rows, offset)


def _offset(vault: Transaction, rows: Sequence[Row]) -> int:
    """Return how far the relay's clock is ahead of ours, in milliseconds, if one of *rows* has to be told by it."""
    return vault.counter("relay_offset") if any(row.expires_at for row in rows) else 0


def _leaving(rows: Sequence[Row], offset: int) -> list[Row]:
    return [msgspec.structs.replace(row, expires_at=_by_the_relays_clock(row, offset)) for row in _within_bytes(rows)]


def seal_waiting(here: Here, vault: Transaction, recipient: Username, places: Places) -> list[Row]:
    """Seal the oldest rows for *recipient*, in the caller's lasting transaction, and return them."""
    peer, mail_class, count = vault.peer(here.address(recipient)), places.mail_class, places.count
    if peer.conversation.identity is not None:  # in this transaction: another process may just have added a row
        refuse_misaddressed(here, vault, recipient, peer.conversation.identity)
    before, rows, run = peer.conversation, list[Row](), list[tuple[Row, Body]]()
    looked_at = max(count, MOST_PARTS) if mail_class == MailClass.MESSAGE else count
    for row in _within_bytes(_oldest(vault, recipient, mail_class, looked_at)):
        body = _shareable(vault, row)
        if body is None or (run and abs(body.sent_at - run[0][1].sent_at) > _TOGETHER_MS):
            rows += _seal_run(vault, peer, run, places.room)
            run = []
        if body is not None:
            run.append((row, body))
        else:
            rows += [row] if row.sealed else _seal(vault, peer, row)
    rows += _seal_run(vault, peer, run, places.room)
    if peer.conversation is not before:
        vault.save_peer(peer)
    return rows[:count]


def _shareable(vault: Transaction, row: Row) -> Body | None:
    """Return the body of a message that may travel with its neighbours; None if it may not."""
    if not row.may_share:
        return None
    (stored,) = vault.run("SELECT body FROM sent WHERE id = ?", (row.id,)).fetchone()
    body = decode_body(vault.unseal("sent.body", row.id, stored))
    # What was taken out of a batch has a place, and goes alone: whatever a relay announces, it refuses no batch twice.
    return None if body.sequence else body


def _oldest(vault: Transaction, recipient: Username, mail_class: MailClass, count: int) -> list[Row]:
    found = vault.run(
        "SELECT outbox.row, outbox.id, outbox.attempt, mail_class, expires_at, sealed, body, prefix, members "
        "FROM outbox LEFT JOIN batches ON batches.id = outbox.id "
        "WHERE outbox.peer = ? AND mail_class = ? ORDER BY outbox.row LIMIT ?",
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


def _seal(vault: Transaction, peer: Peer, row: Row) -> list[Row]:
    """Seal one row; of a batch of which nothing is left, there is none."""
    body: bytes | None
    if row.body is not None:
        body = vault.unseal("outbox.body", row.id, row.body)
    elif row.members is not None:
        body = batches.sealed_for(vault, row.id, pin_of(peer.conversation.identity))
    else:
        body = _numbered(vault, peer, row.id)
        # Believe a receipt, and honour a retry, of exactly the identity that this is sealed for.
        vault.run("UPDATE sent SET pin = ? WHERE id = ?", (pin_of(peer.conversation.identity), row.id))
    if body is None:
        vault.run("DELETE FROM outbox WHERE row = ?", (row.row,))
        return []
    peer.conversation, sealed = peer.conversation.seal(row.id, row.attempt, body, entropy=vault.draw)
    vault.run("UPDATE outbox SET sealed = ?, body = NULL WHERE id = ?", (sealed, row.id))
    if row.members is not None:  # those that are over are not in it any more
        row = msgspec.structs.replace(row, members=batches.joined(batches.members_of(vault, row.id)))
    return [msgspec.structs.replace(row, sealed=sealed)]


def _seal_run(vault: Transaction, peer: Peer, run: Sequence[tuple[Row, Body]], room: int) -> list[Row]:
    """Seal neighbours, in as few envelopes as hold them. An envelope takes the first place of what is in it."""
    rows = [row for row, _ in run]
    if len(rows) == 1:
        return _seal(vault, peer, rows[0])
    if not rows:
        return []
    line, sealed = Line(vault, peer, room), list[Row]()
    entries = [Entry(row.id, body) for row, body in run]
    for entry in entries:
        line.add(entry)
    line.end()
    vault.run_many(
        "UPDATE sent SET body = ?, batch = ?, pin = ? WHERE id = ?",
        [(entry.kept, entry.batch, line.pin, entry.id) for entry in entries],
    )
    at = 0
    for envelope in line.envelopes:
        first, others = rows[at], rows[at + 1 : at + envelope.count]
        vault.run_many("DELETE FROM outbox WHERE row = ?", [(row.row,) for row in others])
        vault.run("UPDATE outbox SET id = ?, sealed = ? WHERE row = ?", (envelope.id, envelope.sealed, first.row))
        members = batches.joined(row.id for row in (first, *others)) if others else None
        sealed.append(msgspec.structs.replace(first, id=envelope.id, sealed=envelope.sealed, members=members))
        at += envelope.count
    return sealed


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
