"""Save, then send: a message is in the vault before anything leaves, and a retry sends the same bytes and id."""

from collections.abc import Sequence

import msgspec

from aimessage.client import fates, gate, loops
from aimessage.client.account import Here
from aimessage.client.letter import Letter, Summary, key_mac
from aimessage.client.line import Entry, Line
from aimessage.client.links import MOST_AT_ONCE
from aimessage.client.sealing import Places, open_line, seal_waiting
from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Body, encode_body, require_fits
from aimessage.errors import AimessageError, IdempotencyConflict, VaultDamaged, VaultUnavailable
from aimessage.types import MessageId, Username
from aimessage.wire.frames import MailClass

__all__ = ["CONTROL_LIFE_MS", "Draft", "abandon", "let_go", "save", "save_all", "save_control", "waiting_peers"]

CONTROL_LIFE_MS = 7 * 86_400_000
_FEW = 8
_LOOKED_AT = 600


class Draft(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One message that is to be saved. *prefix* is the fingerprint of a self-certifying address; it stays with the row,
    whichever command sends it. With *awaited_until* (milliseconds since 1970) its answer is kept for us. A caller that
    may have to try again elsewhere, not knowing whether it was saved, has *chosen* its id: it is saved once.
    """

    recipient: Username
    letter: Letter
    prefix: str | None = None
    awaited_until: int = 0
    chosen: MessageId | None = None


def save(
    here: Here, recipient: Username, letter: Letter, *, prefix: str | None = None, awaited_until: int = 0
) -> MessageId:
    """Commit one message to the outbox and return its id; nothing has left.

    The same idempotency key gives the same id; so does the same content to the same address, if an earlier command
    gave it up before the relay had it.

    Raises what `Letter.body` does, TooLarge, IdempotencyConflict, Blocked and LoopStopped.
    """
    [result] = save_all(here, [Draft(recipient, letter, prefix, awaited_until)])
    if isinstance(result, AimessageError):
        raise result
    return result


def save_all(here: Here, drafts: Sequence[Draft], *, room: int = 0) -> list[MessageId | AimessageError]:
    """Commit several messages together; return the id of each, or why it cannot be sent: `save` says when.

    With *room*, the largest padded body that an open link takes, they are sealed in the same commit where a session is
    there: only for what leaves at once, because the place of a sealed message in our order is taken, even if it never
    leaves.

    Raises VaultUnavailable, VaultDamaged: none is saved.
    """
    results: list[MessageId | AimessageError] = []
    with here.vault.transaction() as vault:
        batch = _Commit(here, vault, len(drafts), room)
        for draft in drafts:
            try:
                results.append(batch.save(draft))
            except (VaultUnavailable, VaultDamaged):
                raise
            except AimessageError as error:  # nothing of this one was written; the others are not to blame
                results.append(error)
        batch.end()
    return results


class _Commit:
    """The messages of one commit. Their ids follow one another, so that they lie together in every index."""

    def __init__(self, here: Here, vault: Transaction, count: int, room: int) -> None:
        self._here = here
        self._vault = vault
        self._room = room
        self._now_ms = here.now_ms
        self._together, self._next = here.entropy(8), int.from_bytes(here.entropy(8), "big")
        self._offset = vault.counter("relay_offset")
        self._may_adopt = count < _FEW or _others_wait(here, vault)
        self._claimed: dict[bytes, tuple[MessageId, bytes]] = {}  # by what a repetition within this commit would name
        self._sent: list[tuple[Entry, tuple[object, ...]]] = []
        self._outbox: list[tuple[object, ...]] = []
        self._admitted: set[tuple[Username, str]] = set()
        self._lines: dict[Username, Line | None] = {}

    def save(self, draft: Draft) -> MessageId:
        """Write one message. Raises why it cannot be sent; nothing of it was written then."""
        here, vault = self._here, self._vault
        key, letter, recipient = here.account.idempotency_key, draft.letter, draft.recipient
        claim = key_mac(key, recipient, letter.idempotency_key) if letter.idempotency_key is not None else None
        body = letter.body(self._now_ms)
        digest = letter.digest(key, f"{recipient}~{draft.prefix or ''}", body)
        require_fits(body)  # before anything is written
        message_id = self._known(claim, digest, draft.chosen)
        if message_id is None:
            body = loops.count_sent(vault, recipient, body, self._now_ms)
            if (recipient, letter.contact) not in self._admitted:
                gate.admit_by_writing(here, vault, recipient, letter.contact)
                self._admitted.add((recipient, letter.contact))
            message_id = draft.chosen or self._new_id()
            self._insert(message_id, draft, body, claim, digest)
        if draft.awaited_until:
            vault.run(
                "REPLACE INTO awaits (id, peer, answer, until, owner) VALUES (?, ?, NULL, ?, ?)",
                (message_id, recipient, draft.awaited_until, here.living.token),
            )
        return message_id

    def _known(self, claim: bytes | None, digest: bytes, chosen: MessageId | None) -> MessageId | None:
        """Return the message that this send repeats, and make it ours to send. Raises IdempotencyConflict."""
        for name in (claim, chosen):
            if name is not None and name in self._claimed:
                message_id, first = self._claimed[name]
                _require_same(first, digest)
                return message_id
        if claim is None and chosen is None and not self._may_adopt:
            return None
        return _known(self._here, self._vault, claim, digest, chosen)

    def _new_id(self) -> MessageId:
        self._next = (self._next + 1) % (1 << 64)
        return MessageId(self._together + self._next.to_bytes(8, "big"))

    def _insert(self, message_id: MessageId, draft: Draft, body: Body, claim: bytes | None, digest: bytes) -> None:
        vault, now_ms, recipient = self._vault, self._now_ms, draft.recipient
        line, pin, entry = self._line(draft), None, Entry(message_id, body)
        if line is not None:
            pin = line.pin
            line.add(entry)
        else:
            entry.kept = vault.seal("sent.body", message_id, encode_body(body))
            self._outbox.append((message_id, recipient, int(MailClass.MESSAGE), body.expires_at, b"", draft.prefix))
        due, owner = now_ms + draft.letter.life_ms, self._here.living.token
        summary = Summary(body.kind, body.thread, body.reply_to, len((body.text or body.data).encode()), body.hops)
        told = vault.seal("sent.summary", message_id, msgspec.msgpack.encode(summary))
        row = (message_id, recipient, now_ms, due, claim, now_ms, due + self._offset, digest, told, owner, pin)
        self._sent.append((entry, row))
        for name in (claim, draft.chosen):
            if name is not None:
                self._claimed[name] = message_id, digest

    def _line(self, draft: Draft) -> Line | None:
        """Return where this message is sealed at once; it is sealed later if its address has to be compared first."""
        recipient = draft.recipient
        if not self._room:
            return None
        if draft.prefix is not None:
            self._end_line(recipient)
        if recipient not in self._lines:
            self._lines[recipient] = open_line(self._here, self._vault, recipient, self._room)
        return self._lines[recipient]

    def _end_line(self, recipient: Username) -> None:
        line = self._lines.get(recipient)
        if line is not None:
            line.end()
            mail = int(MailClass.MESSAGE)
            self._outbox += [(each.id, recipient, mail, each.expires_at, each.sealed, None) for each in line.envelopes]
        self._lines[recipient] = None

    def end(self) -> None:
        """Seal what has a session, keep how far it has gone, write all rows, and seal what could not be at once."""
        at_once = [recipient for recipient, line in self._lines.items() if line is not None]
        for recipient in at_once:
            self._end_line(recipient)
        self._vault.run_many(
            "INSERT INTO sent (id, peer, fate, changed_at, expires_at, idempotency, saved_at, relay_due, "
            "digest, summary, owner, pin, body, batch) VALUES (?, ?, 'waiting', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(*row, entry.kept, entry.batch) for entry, row in self._sent],
        )
        self._vault.run_many(
            "INSERT INTO outbox (id, peer, attempt, mail_class, expires_at, sealed, prefix) "
            "VALUES (?, ?, 0, ?, ?, ?, ?)",
            self._outbox,
        )
        for recipient in self._lines.keys() - set(at_once):
            if self._vault.peer(self._here.address(recipient)).conversation.can_send:
                seal_waiting(self._here, self._vault, recipient, Places(MailClass.MESSAGE, MOST_AT_ONCE, self._room))


def _known(
    here: Here, vault: Transaction, claim: bytes | None, digest: bytes, chosen: MessageId | None
) -> MessageId | None:
    """Return the message that this send repeats, and make it ours to send. Raises IdempotencyConflict."""
    if claim is not None:
        row = vault.run("SELECT id, digest FROM sent WHERE idempotency = ?", (claim,)).fetchone()
        if row is not None:
            _require_same(row[1], digest)
        return MessageId(row[0]) if row else None
    if chosen is not None:
        row = vault.run("SELECT digest FROM sent WHERE id = ?", (chosen,)).fetchone()
        if row is not None and row[0] != digest:
            raise IdempotencyConflict("another message has the id that was chosen for this one")
        if row is not None:
            return chosen
    waiting = vault.run(
        "SELECT id, owner FROM sent INDEXED BY sent_digest WHERE digest = ? AND fate = 'waiting' "
        "AND idempotency IS NULL ORDER BY saved_at",
        (digest,),
    )
    for message_id, owner in waiting.fetchall():
        if not here.living.is_alive(owner):
            vault.run("UPDATE sent SET owner = ? WHERE id = ?", (here.living.token, message_id))
            return MessageId(message_id)
    return None


def _require_same(first: bytes, digest: bytes) -> None:
    if first != digest:
        raise IdempotencyConflict("this idempotency key was used with another message")


def _others_wait(here: Here, vault: Transaction) -> bool:
    """Return whether a message that is not ours may wait to be adopted: looked for once, and not for long."""
    owners = vault.run(
        "SELECT owner FROM sent INDEXED BY sent_digest WHERE fate = 'waiting' LIMIT ?", (_LOOKED_AT,)
    ).fetchall()
    return len(owners) == _LOOKED_AT or any(owner != here.living.token for (owner,) in owners)


def save_control(here: Here, vault: Transaction, recipient: Username, kind: str, report: bytes) -> None:
    """Put one control body into the outbox, within the caller's transaction."""
    now_ms = here.now_ms
    message_id = MessageId(here.entropy(16))
    body = Body(kind, vault.vault_id(), 0, now_ms, report=report, receipts=0, expects_reply=False)
    _enqueue(vault, recipient, message_id, 0, MailClass.CONTROL, now_ms + CONTROL_LIFE_MS)
    vault.run(
        "UPDATE outbox SET body = ? WHERE id = ?",
        (vault.seal("outbox.body", message_id, encode_body(body)), message_id),
    )


def enqueue_again(
    vault: Transaction, recipient: Username, envelope_id: MessageId, attempt: int, members: Sequence[MessageId]
) -> None:
    """Put back what its recipient could not open, a message or a batch: it is sealed anew when it leaves."""
    expires_at = max(
        vault.run("SELECT expires_at FROM sent WHERE id = ?", (message_id,)).fetchone()[0] for message_id in members
    )
    vault.run("DELETE FROM outbox WHERE id = ?", (envelope_id,))
    _enqueue(vault, recipient, envelope_id, attempt, MailClass.MESSAGE, expires_at)
    vault.run_many("UPDATE sent SET attempt = ? WHERE id = ?", [(attempt, message_id) for message_id in members])


def _enqueue(
    vault: Transaction, recipient: Username, message_id: MessageId, attempt: int, mail_class: MailClass, expires_at: int
) -> None:
    vault.run(
        "INSERT INTO outbox (id, peer, attempt, mail_class, expires_at, sealed) VALUES (?, ?, ?, ?, ?, x'')",
        (message_id, recipient, attempt, int(mail_class), expires_at),
    )


def waiting_peers(here: Here) -> list[Username]:
    """Return the peers to whom something waits to be sent, the longest waiting first."""
    with here.vault.reading() as vault:
        rows = vault.run("SELECT peer FROM outbox GROUP BY peer ORDER BY min(row)").fetchall()
    return [Username(name) for (name,) in rows]


def let_go(here: Here, ids: Sequence[MessageId]) -> None:
    """The command that sent these messages stops trying: the next one, or an identical send, goes on with them."""
    with here.vault.transaction() as vault:
        vault.run_many("UPDATE sent SET owner = NULL WHERE id = ?", [(message_id,) for message_id in ids])


def abandon(here: Here, ids: Sequence[MessageId], error: AimessageError) -> set[MessageId]:
    """Give messages up that cannot be sent as they are; their fate says why. Return of which that was still possible.

    One that was sealed for the wire may have left: it keeps its row, its bytes and its id.
    """
    given_up = set()
    with here.vault.transaction() as vault:
        for message_id in ids:
            found = vault.run(
                "SELECT id = ?1, sealed = x'', NOT EXISTS (SELECT 1 FROM sent WHERE id = ?1 AND batch NOT NULL) "
                "FROM outbox WHERE id = ?1 OR id = (SELECT batch FROM sent WHERE sent.id = ?1)",
                (message_id,),
            ).fetchone()
            is_unsealed = found is not None and all(found)
            if found is None or is_unsealed:
                given_up.add(message_id)
            if is_unsealed:
                fates.settle(here, vault, message_id, "refused", error.code)
                # Nothing left: the key is free.
                vault.run("UPDATE sent SET idempotency = NULL WHERE id = ?", (message_id,))
    return given_up
