"""Messages that travel in one envelope: their bodies are kept together, sealed at rest, each until it is over.

An envelope with several messages has an id of its own, which only the two agents' programs and the relay see. What is
sealed again carries those of its messages that are still open, under the same id. A message leaves its batch only
where a relay does not take so much at once: `unpack`.
"""

from collections.abc import Iterable, Sequence

import msgspec

from aimessage.client.owed import owe_receipts
from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Body, batch_of, decode_body, encode_body, parts_of
from aimessage.e2ee.reports import decode_receipts
from aimessage.types import ID_BYTES, MessageId, Username

__all__ = [
    "are_kept",
    "believed",
    "body_of",
    "forget",
    "forget_old",
    "joined",
    "keep",
    "members_of",
    "sealed_for",
    "split",
    "strike",
    "unpack",
]

_PLACE = "batches.bodies"


def joined(ids: Iterable[MessageId]) -> bytes:
    """Return the ids as a row keeps them."""
    return b"".join(ids)


def split(members: bytes) -> list[MessageId]:
    """Return the ids that `joined` put together."""
    return [MessageId(members[at : at + ID_BYTES]) for at in range(0, len(members), ID_BYTES)]


def keep(
    vault: Transaction, batch_id: MessageId, peer: Username, pin: bytes | None, batch: Body, padded: bytes
) -> None:
    """Keep a *batch*, *padded* as it is sealed for *peer* under the identity *pin*."""
    members = joined(MessageId(part.id) for part in batch.parts)
    vault.run(
        "INSERT INTO batches (id, peer, pin, at, members, bodies) VALUES (?, ?, ?, ?, ?, ?)",
        (batch_id, peer, pin, batch.sent_at, members, vault.seal(_PLACE, batch_id, padded)),
    )


def are_kept(vault: Transaction) -> bool:
    """Return whether there is any batch."""
    return vault.run("SELECT 1 FROM batches LIMIT 1").fetchone() is not None


def members_of(vault: Transaction, message_id: MessageId) -> list[MessageId]:
    """Return the messages in the envelope with this id, as it was sealed last; of what is no batch, itself."""
    row = vault.run("SELECT members FROM batches WHERE id = ?", (message_id,)).fetchone()
    return split(row[0]) if row else [message_id]


def body_of(vault: Transaction, batch_id: MessageId, message_id: MessageId) -> Body | None:
    """Return the body of one message of a batch, unless it has been erased."""
    row = vault.run("SELECT bodies FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return dict(_opened(vault, batch_id, row[0])).get(message_id) if row else None


def believed(
    vault: Transaction, peer: Username, pin: bytes, ids: Sequence[MessageId]
) -> tuple[list[MessageId], list[MessageId]]:
    """Return which of *ids* are batches that were sealed for this identity of *peer*, and the messages in those."""
    marks = ", ".join("?" * len(ids))
    rows = vault.run(
        f"SELECT id, members FROM batches WHERE id IN ({marks}) AND peer = ? AND pin = ?",  # noqa: S608 - marks
        (*ids, peer, pin),
    ).fetchall()
    return [MessageId(row[0]) for row in rows], [each for row in rows for each in split(row[1])]


def sealed_for(vault: Transaction, batch_id: MessageId, pin: bytes | None) -> bytes | None:
    """Return the padded body of a batch that is now sealed anew, for the identity *pin*, with what of it is not over.

    From now on its envelope is of these messages. None: nothing of it is left.
    """
    (sealed,) = vault.run("SELECT bodies FROM batches WHERE id = ?", (batch_id,)).fetchone()
    members = [message_id for message_id, _ in _opened(vault, batch_id, sealed)]
    if not members:
        return None
    vault.run("UPDATE batches SET pin = ?, members = ? WHERE id = ?", (pin, joined(members), batch_id))
    vault.run_many("UPDATE sent SET pin = ? WHERE id = ?", [(pin, message_id) for message_id in members])
    return vault.unseal(_PLACE, batch_id, sealed)


def strike(vault: Transaction, ids: Sequence[MessageId]) -> None:
    """These messages are over: what is kept of them in batches is erased."""
    marks = ", ".join("?" * len(ids))
    rows = vault.run(
        f"SELECT id, members, bodies FROM batches WHERE id IN (SELECT batch FROM sent WHERE id IN ({marks}))",  # noqa: S608 - marks
        ids,
    ).fetchall()
    struck = set(ids)
    for batch_id, members, sealed in rows:
        kept = _opened(vault, batch_id, sealed)
        left = [each for each in kept if each[0] not in struck]
        if left:
            if len(left) < len(kept):
                report = decode_body(vault.unseal(_PLACE, batch_id, sealed)).report
                batch = msgspec.structs.replace(batch_of(left), report=report)
                bodies = vault.seal(_PLACE, batch_id, encode_body(batch))
                vault.run("UPDATE batches SET bodies = ? WHERE id = ?", (bodies, batch_id))
        elif _have_arrived(vault, split(members)):
            forget(vault, [batch_id])
        else:  # a receipt may still overrule what became of them: only the recipient knows
            vault.run("UPDATE batches SET bodies = x'' WHERE id = ?", (batch_id,))
            vault.run("DELETE FROM outbox WHERE id = ?", (batch_id,))


def unpack(vault: Transaction, batch_id: MessageId) -> None:
    """The relay does not take so much at once: the batch's messages wait unsealed again, in their place of our order.

    Of one that is sent again, the first stays under the envelope's id, for which its recipient waits. Should the relay
    have kept the envelope all the same, its messages are known by their ids, and a receipt for it is still believed.
    """
    found = vault.run(
        "SELECT outbox.row, outbox.peer, attempt, mail_class, expires_at, bodies FROM outbox "
        "JOIN batches ON batches.id = outbox.id WHERE outbox.id = ?",
        (batch_id,),
    ).fetchone()
    if found is None:
        return
    row, peer, attempt, mail_class, expires_at, sealed = found
    report, parts = decode_body(vault.unseal(_PLACE, batch_id, sealed)).report, _opened(vault, batch_id, sealed)
    for receipt, ids in decode_receipts(report) if report else ():  # they went nowhere
        owe_receipts(vault, [(peer, message_id, int(receipt)) for message_id in ids], receipt)
    (last,) = vault.run("SELECT max(row) FROM outbox").fetchone()
    vault.run(  # what comes behind it goes behind all that there is, with room in front
        "UPDATE outbox SET row = row + ? WHERE peer = ? AND mail_class = ? AND row > ?",
        (last + len(parts), peer, mail_class, row),
    )
    vault.run("DELETE FROM outbox WHERE id = ?", (batch_id,))
    if attempt:
        first = vault.seal(_PLACE, batch_id, encode_body(batch_of(parts[:1])))
        vault.run("UPDATE batches SET bodies = ? WHERE id = ?", (first, batch_id))
        waiting = [batch_id, *(message_id for message_id, _ in parts[1:])]
    else:
        vault.run("UPDATE batches SET bodies = x'' WHERE id = ?", (batch_id,))
        waiting = [message_id for message_id, _ in parts]
    for message_id, body in parts[1:] if attempt else parts:
        kept = vault.seal("sent.body", message_id, encode_body(body))
        vault.run("UPDATE sent SET body = ? WHERE id = ?", (kept, message_id))
    vault.run_many(
        "INSERT INTO outbox (row, peer, attempt, mail_class, expires_at, id, sealed) VALUES (?, ?, ?, ?, ?, ?, x'')",
        [(last + 1 + at, peer, attempt, mail_class, expires_at, each) for at, each in enumerate(waiting)],
    )


def forget(vault: Transaction, batch_ids: Sequence[MessageId]) -> None:
    """Every message of these batches has arrived."""
    rows = [(batch_id,) for batch_id in batch_ids]
    vault.run_many("DELETE FROM batches WHERE id = ?", rows)
    vault.run_many("DELETE FROM outbox WHERE id = ?", rows)


def forget_old(vault: Transaction, before: int) -> None:
    """Forget the batches that were made before a time, in milliseconds since 1970, and of which no message is open."""
    vault.run(
        "DELETE FROM batches WHERE at < ? AND id NOT IN "
        "(SELECT batch FROM sent WHERE fate IN ('waiting', 'accepted') AND batch IS NOT NULL)",
        (before,),
    )


def _opened(vault: Transaction, batch_id: MessageId, sealed: bytes) -> list[tuple[MessageId, Body]]:
    return parts_of(decode_body(vault.unseal(_PLACE, batch_id, sealed))) if sealed else []


def _have_arrived(vault: Transaction, ids: Sequence[MessageId]) -> bool:
    marks = ", ".join("?" * len(ids))
    sql = f"SELECT 1 FROM sent WHERE id IN ({marks}) AND fate NOT IN ('delivered', 'read', 'handled') LIMIT 1"  # noqa: S608 - marks
    return vault.run(sql, ids).fetchone() is None
