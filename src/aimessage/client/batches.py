"""Messages that travel in one envelope: their bodies are kept together, sealed at rest, each until it is over.

An envelope with several messages has an id of its own, which only the two agents' programs see. A message is in one
batch for good: what is sealed again carries those of its messages that are still open, under the same id.
"""

from collections.abc import Iterable, Sequence

from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Body, batch_of, decode_body, encode_body, parts_of
from aimessage.types import MessageId, Username

__all__ = [
    "are_kept",
    "believed",
    "body_of",
    "forget",
    "joined",
    "keep",
    "keep_only",
    "members_of",
    "padded_of",
    "require_pin",
    "split",
    "strike",
]

_ID_BYTES = 16
_PLACE = "batches.bodies"


def joined(ids: Iterable[MessageId]) -> bytes:
    """Return the ids as a row keeps them."""
    return b"".join(ids)


def split(members: bytes) -> list[MessageId]:
    """Return the ids that `joined` put together."""
    return [MessageId(members[at : at + _ID_BYTES]) for at in range(0, len(members), _ID_BYTES)]


def keep(
    vault: Transaction, batch_id: MessageId, peer: Username, pin: bytes | None, batch: Body, padded: bytes
) -> None:
    """Keep a *batch*, *padded* as it is sealed for *peer* under the identity *pin*."""
    members = joined(MessageId(part.id) for part in batch.parts)
    vault.run(
        "INSERT INTO batches (id, peer, pin, at, members, bodies) VALUES (?, ?, ?, ?, ?, ?)",
        (batch_id, peer, pin, batch.sent_at, members, vault.seal(_PLACE, batch_id, padded)),
    )


def keep_only(vault: Transaction, batch_id: MessageId, ids: Sequence[MessageId]) -> None:
    """From now on the batch is of these messages; of the others nothing is sealed anew. Harmless for what is none."""
    vault.run("UPDATE batches SET members = ? WHERE id = ?", (joined(ids), batch_id))


def are_kept(vault: Transaction) -> bool:
    """Return whether there is any batch."""
    return vault.run("SELECT 1 FROM batches LIMIT 1").fetchone() is not None


def members_of(vault: Transaction, message_id: MessageId) -> list[MessageId]:
    """Return the messages of the batch with this id; of what is no batch, the message itself."""
    row = vault.run("SELECT members FROM batches WHERE id = ?", (message_id,)).fetchone()
    return split(row[0]) if row else [message_id]


def padded_of(vault: Transaction, batch_id: MessageId) -> bytes | None:
    """Return the padded body of a batch, with those of its messages that are not over; None if there is none."""
    row = vault.run("SELECT bodies FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return vault.unseal(_PLACE, batch_id, row[0]) if row and row[0] else None


def body_of(vault: Transaction, batch_id: MessageId, message_id: MessageId) -> Body | None:
    """Return the body of one message of a batch, unless it has been erased."""
    padded = padded_of(vault, batch_id)
    return dict(parts_of(decode_body(padded))).get(message_id) if padded else None


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


def require_pin(vault: Transaction, batch_id: MessageId, pin: bytes | None) -> None:
    """Note for which identity a batch, and each message in it, has now been sealed."""
    vault.run("UPDATE batches SET pin = ? WHERE id = ?", (pin, batch_id))
    members = members_of(vault, batch_id)
    vault.run_many("UPDATE sent SET pin = ? WHERE id = ?", [(pin, message_id) for message_id in members])


def strike(vault: Transaction, ids: Sequence[MessageId]) -> None:
    """These messages are over: what is kept of them in batches is erased."""
    marks = ", ".join("?" * len(ids))
    rows = vault.run(
        f"SELECT id, bodies FROM batches WHERE id IN (SELECT batch FROM sent WHERE id IN ({marks}))",  # noqa: S608 - marks
        ids,
    ).fetchall()
    for batch_id, sealed in rows:
        kept = parts_of(decode_body(vault.unseal(_PLACE, batch_id, sealed))) if sealed else []
        left = [each for each in kept if each[0] not in ids]
        if not left:
            vault.run("DELETE FROM outbox WHERE id = ?", (batch_id,))
        if len(left) < len(kept):
            bodies = vault.seal(_PLACE, batch_id, encode_body(batch_of(left))) if left else b""
            vault.run("UPDATE batches SET bodies = ? WHERE id = ?", (bodies, batch_id))


def forget(vault: Transaction, batch_ids: Sequence[MessageId]) -> None:
    """Every message of these batches has arrived."""
    rows = [(batch_id,) for batch_id in batch_ids]
    vault.run_many("DELETE FROM batches WHERE id = ?", rows)
    vault.run_many("DELETE FROM outbox WHERE id = ?", rows)
