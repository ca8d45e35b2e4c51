"""What became of our messages: each ends as handled, read, delivered, refused, expired or undecryptable.

A fate only ever rises: waiting, accepted, delivered, read, handled; what is over may still be overruled by a receipt,
because only the recipient knows.
"""

from collections.abc import Mapping, Sequence

import msgspec

from aimessage.client import batches
from aimessage.client.account import Here
from aimessage.client.letter import Summary
from aimessage.client.spans import spans_of_ids
from aimessage.client.transaction import Transaction
from aimessage.clock import timestamp
from aimessage.e2ee.bodies import Receipts, decode_body
from aimessage.errors import AimessageError, DecryptionFailed, MessageUnknown, TimedOut, error_from_code
from aimessage.types import MessageId, Username, message_id_text
from aimessage.wire.frames import MailClass

__all__ = [
    "FATES",
    "Fate",
    "end",
    "expire",
    "fate_of",
    "raise_for",
    "receipt_fate",
    "rise",
    "sent_before",
    "settle",
    "settle_accepted",
    "settle_all_to",
    "status",
    "told_of",
    "waiting_among",
]

FATES = {"waiting": 0, "accepted": 1, "delivered": 2, "read": 3, "handled": 4}
"""Every fate on the way, in order; refused, expired and undecryptable rank with waiting."""
_ARRIVED = frozenset({"delivered", "read", "handled"})
_AT_ONCE = 1_000  # messages that one statement names
_MARGIN_MS = 3_600_000
_OFFSET_MS = 5_000
_KEPT_MS = 90 * 86_400_000
_FORGETTING_MS = 3_600_000
_CONTROL_MS = 7 * 86_400_000
_REFUSALS = {
    "peer_identity_changed": "the key of this name is not the one in the address; nothing was sent",
}
# The first bound is for the index: few of all that was ever sent have come so far.
_DUE = (
    "SELECT id, fate, saved_at, expires_at FROM sent WHERE fate IN ('waiting', 'accepted') AND relay_due <= ?1 "
    "AND relay_due + CASE fate WHEN 'waiting' THEN 0 ELSE ?2 END <= ?1"
)
_COLUMNS = "id, peer, fate, code, changed_at, expires_at, attempt, saved_at, summary, body, batch"


class Fate(msgspec.Struct, frozen=True):
    """One message of ours and what is known of it; *text* and *data* only until it is delivered or over."""

    id: str
    to: str
    state: str
    code: str | None
    sent_at: str | None
    changed_at: str | None
    expires_at: str | None
    attempts: int
    thread: str | None = None
    reply_to: str | None = None
    kind: str = "text"
    bytes: int = 0
    text: str | None = None
    data: str | None = None


def receipt_fate(receipt: Receipts) -> str:
    """Return the fate that a receipt tells of."""
    return {Receipts.DELIVERED: "delivered", Receipts.READ: "read", Receipts.HANDLED: "handled"}[receipt]


def settle(here: Here, vault: Transaction, envelope_id: MessageId, fate: str, code: str) -> None:
    """Take a message, or a batch, out of the outbox; what of it has not arrived ends with *fate* and *code*."""
    vault.run("DELETE FROM outbox WHERE id = ?", (envelope_id,))
    end(here, vault, batches.members_of(vault, envelope_id), fate, code)


def end(here: Here, vault: Transaction, ids: Sequence[MessageId], fate: str, code: str) -> None:
    """These messages, out of the outbox already if each was alone, end with *fate* and *code*, unless they are over."""
    ended = []
    for message_id in ids:
        row = vault.run("SELECT fate FROM sent WHERE id = ?", (message_id,)).fetchone()
        if row is None or not _may_become(row[0], fate):
            continue  # control mail, or a receipt overtook the answer
        ended.append(message_id)
        vault.run(  # nobody can ask for it again: its body goes
            "UPDATE sent SET fate = ?, code = ?, changed_at = ?, owner = NULL, body = NULL WHERE id = ?",
            (fate, code, here.now_ms, message_id),
        )
    batches.strike(vault, ended)


def settle_all_to(here: Here, vault: Transaction, peer: Username, code: str) -> None:
    """Nothing that waits for *peer* leaves any more: it ends as refused, with *code*."""
    for (envelope_id,) in vault.run("SELECT id FROM outbox WHERE peer = ?", (peer,)).fetchall():
        settle(here, vault, MessageId(envelope_id), "refused", code)


def settle_accepted(here: Here, vault: Transaction, rows: Sequence[int], accepted: Mapping[MessageId, int]) -> None:
    """The relay has what is in these *rows* of the outbox: the messages, each with when the relay drops it.

    That is in milliseconds since 1970, 0 for unknown.
    """
    vault.run_many("DELETE FROM outbox WHERE row = ?", [(row,) for row in rows])
    now_ms, of_times = here.now_ms, dict[int, list[MessageId]]()
    for message_id, relay_due in accepted.items():
        of_times.setdefault(relay_due, []).append(message_id)
    vault.run_many(
        "UPDATE sent SET fate = 'accepted', code = NULL, changed_at = ?1, owner = NULL, "
        "relay_due = CASE WHEN ?2 > 0 THEN ?2 ELSE relay_due END "
        "WHERE id BETWEEN ?3 AND ?4 AND fate IN ('waiting', 'accepted')",  # a receipt may come first
        [(now_ms, relay_due, *span) for relay_due, ids in of_times.items() for span in spans_of_ids(ids)],
    )


def _may_become(fate: str, ending: str) -> bool:
    """Return whether a message with *fate* may end as *ending*: what is over stays so, and what has arrived."""
    return fate == "waiting" or (fate == "accepted" and ending != "refused")


def rise(here: Here, vault: Transaction, peer: Username, pin: bytes, ids: Sequence[MessageId], fate: str) -> None:
    """*peer*, under identity *pin*, reports a fate of messages, or of all in a batch.

    It is believed only of what was sealed for that identity.
    """
    are_kept = batches.are_kept(vault)
    whole, members = batches.believed(vault, peer, pin, ids) if are_kept else ([], [])
    beyond = ", ".join(f"'{each}'" for each, rank in FATES.items() if rank >= FATES[fate])
    believed = f"id BETWEEN ?1 AND ?2 AND peer = ?3 AND pin = ?4 AND fate NOT IN ({beyond})"
    alone = [each for each in ids if each not in whole]
    vault.run_many(  # most have left it long ago
        f"DELETE FROM outbox WHERE id IN (SELECT id FROM sent WHERE {believed})",  # noqa: S608 - constants
        [(*span, peer, pin) for span in spans_of_ids(alone)],
    )
    vault.run_many(
        "UPDATE sent SET fate = ?5, code = NULL, changed_at = ?6, owner = NULL, body = NULL "  # noqa: S608 - constants
        f"WHERE {believed}",
        [(*span, peer, pin, fate, here.now_ms) for span in spans_of_ids((*alone, *members))],
    )
    if are_kept:
        batches.forget(vault, whole)
        batches.strike(vault, [message_id for message_id, known, _ in _among(vault, alone) if known in _ARRIVED])


def expire(here: Here, relay_ms: int) -> None:
    """Declare expired what nobody has confirmed an hour after its time, by our own clock and by the relay's.

    *relay_ms* is the relay's clock, in milliseconds since 1970. Neither a jump of ours nor a lie of the relay's ends a
    message early: both must agree. What never left ends on time, without the hour. What is older than 90 days and over
    is forgotten, and control mail that found no way out for 7.
    """
    now_ms = here.now_ms
    with here.vault.transaction() as vault:
        if abs(vault.counter("relay_offset") - (relay_ms - now_ms)) > _OFFSET_MS:  # most logins need not write
            vault.save_counter("relay_offset", relay_ms - now_ms)
        rows = vault.run(_DUE, (relay_ms, _MARGIN_MS)).fetchall()
        over = []
        for message_id, fate, saved_at, expires_at in rows:
            life = expires_at - saved_at + (_MARGIN_MS if fate == "accepted" else 0)
            if not 0 <= now_ms - saved_at < life:  # a clock that went back says nothing of how long it has been
                over.append(MessageId(message_id))
        vault.run_many("DELETE FROM outbox WHERE id = ?", [(message_id,) for message_id in over])
        for at in range(0, len(over), _AT_ONCE):
            end(here, vault, over[at : at + _AT_ONCE], "expired", "expired")
        vault.run(
            "DELETE FROM outbox WHERE mail_class = ? AND expires_at NOT BETWEEN ? AND ?",
            (int(MailClass.CONTROL), now_ms, now_ms + 2 * _CONTROL_MS),
        )
        if abs(now_ms - vault.counter("forgot_at")) >= _FORGETTING_MS:  # it walks through all that is remembered
            vault.save_counter("forgot_at", now_ms)
            _forget(vault, now_ms, relay_ms)


def _forget(vault: Transaction, now_ms: int, relay_ms: int) -> None:
    before = min(now_ms, relay_ms) - _KEPT_MS
    vault.run("DELETE FROM sent WHERE saved_at < ? AND fate NOT IN ('waiting', 'accepted')", (before,))
    batches.forget_old(vault, before)
    vault.run("DELETE FROM inbox WHERE received_at < ? AND state IN ('shown', 'handled', 'pending')", (before,))
    vault.run(  # a stranger of whom nothing waits any more may ask again
        "UPDATE peers SET contact = 'none' WHERE contact = 'pending' AND NOT EXISTS "
        "(SELECT 1 FROM inbox WHERE sender = peers.name AND state IN ('pending', 'held'))"
    )
    # No prekey secret outlives 125 days (90 of a bundle, 35 behind it): an older message cannot open again.
    vault.run("DELETE FROM seen WHERE at BETWEEN 1 AND ?", (before - _KEPT_MS,))
    vault.run("DELETE FROM retries WHERE at < ?", (before,))
    vault.run("DELETE FROM awaits WHERE until < ? AND answer IS NULL", (min(now_ms, relay_ms) - _MARGIN_MS,))


def fate_of(here: Here, message_id: MessageId) -> str:
    """Return a message's fate. Raises what the message ended with: a refusal, TimedOut, DecryptionFailed."""
    with here.vault.reading() as vault:
        row = vault.run("SELECT fate, code FROM sent WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise MessageUnknown(f"no message {message_id_text(message_id)} was sent from here")
    fate, code = row
    raise_for(fate, code)
    return str(fate)


def waiting_among(here: Here, ids: Sequence[MessageId]) -> list[MessageId]:
    """Return which of these messages the relay does not have yet, in the same order."""
    waiting = {message_id for message_id, fate, _ in _fates(here, ids) if fate == "waiting"}
    return [message_id for message_id in ids if message_id in waiting]


def told_of(here: Here, ids: Sequence[MessageId]) -> dict[MessageId, str | AimessageError]:
    """Return of each of these messages its fate, or the error that `fate_of` raises."""
    told: dict[MessageId, str | AimessageError] = {}
    for message_id, fate, code in _fates(here, ids):
        try:
            raise_for(fate, code)
            told[message_id] = fate
        except AimessageError as error:
            told[message_id] = error
    return told


def _fates(here: Here, ids: Sequence[MessageId]) -> list[tuple[MessageId, str, str | None]]:
    with here.vault.reading() as vault:
        return _among(vault, ids)


def _among(vault: Transaction, ids: Sequence[MessageId]) -> list[tuple[MessageId, str, str | None]]:
    marks = ", ".join("?" * len(ids))
    return vault.run(f"SELECT id, fate, code FROM sent WHERE id IN ({marks})", ids).fetchall()  # noqa: S608 - marks


def raise_for(fate: str, code: str | None) -> None:
    """Return nothing for a message that is on its way or has arrived. Raises what it ended with."""
    if fate == "refused":
        raise _refusal(code or "denied")
    if fate == "expired":
        raise TimedOut("the message expired before it was delivered", hint="send it again, with a longer --ttl")
    if fate == "undecryptable":
        raise DecryptionFailed("the recipient could not open the message and cannot be sent it again")


def _refusal(code: str) -> AimessageError:
    return error_from_code(code, _REFUSALS.get(code, f"the message was refused: {code}"))


def status(here: Here, message_id: MessageId) -> Fate:
    """Return what is known of one message of ours. Raises MessageUnknown."""
    with here.vault.reading() as vault:
        row = vault.run(f"SELECT {_COLUMNS} FROM sent WHERE id = ?", (message_id,)).fetchone()  # noqa: S608 - constants
        if row is None:
            raise MessageUnknown(f"no message {message_id_text(message_id)} was sent from here")
        return _fate(vault, row)


def sent_before(
    vault: Transaction, peer: str | None, before: tuple[int, bytes], limit: int
) -> list[tuple[tuple[int, bytes], Fate]]:
    """Return our last *limit* messages before a place (ms since 1970, id), each with its own."""
    rows = vault.run(
        f"SELECT {_COLUMNS} FROM sent WHERE (saved_at, id) < (?1, ?2) AND (?3 IS NULL OR peer = ?3) "  # noqa: S608 - constants
        "ORDER BY saved_at DESC, id DESC LIMIT ?4",
        (*before, peer, limit),
    ).fetchall()
    return [((row[7], row[0]), _fate(vault, row)) for row in rows]


def _fate(vault: Transaction, row: tuple[object, ...]) -> Fate:
    found, peer, fate, code, changed_at, expires_at, attempt, saved_at, sealed, body_sealed, batch = row
    message_id = MessageId(found)  # type: ignore[arg-type]  # SQLite's rows are untyped; the schema types them
    summary = Summary("text", "", b"", 0)
    if isinstance(sealed, bytes):
        summary = msgspec.msgpack.decode(vault.unseal("sent.summary", message_id, sealed), type=Summary)
    body = None
    if isinstance(body_sealed, bytes):
        body = decode_body(vault.unseal("sent.body", message_id, body_sealed))
    elif isinstance(batch, bytes):
        body = batches.body_of(vault, MessageId(batch), message_id)
    return Fate(
        id=message_id_text(message_id),
        to=str(peer),
        state=str(fate),
        code=str(code) if code else None,
        sent_at=timestamp(saved_at),  # type: ignore[arg-type]
        changed_at=timestamp(changed_at),  # type: ignore[arg-type]
        expires_at=timestamp(expires_at),  # type: ignore[arg-type]
        attempts=int(attempt) + 1,  # type: ignore[call-overload]
        thread=summary.thread or None,
        reply_to=message_id_text(MessageId(summary.reply_to)) if summary.reply_to else None,
        kind=summary.kind,
        bytes=summary.size_bytes,
        text=body.text if body and body.kind == "text" else None,
        data=body.data if body and body.kind == "data" else None,
    )
