"""What we owe a peer's program: receipts of its messages, and requests for those that did not open; sent later."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Receipts
from aimessage.e2ee.reports import encode_receipts
from aimessage.types import MessageId, Username

__all__ = [
    "Owed",
    "forget_all",
    "is_unasked",
    "owe_receipt",
    "owe_receipts",
    "owe_retry",
    "owed_to",
    "report_of",
    "were_told",
]

Owed = tuple[MessageId, int]
"""A message and the fate of it that its sender is to hear of, with `Receipts.SOON` if somebody waits for that."""
_SOON = int(Receipts.SOON)


def owe_receipt(vault: Transaction, peer: Username, message_id: MessageId, wants: int, receipt: Receipts) -> None:
    """Note that *peer* is to hear of this fate, if it asked to."""
    if wants & int(receipt):  # as plain numbers: a set of flags is slow to intersect
        row = (peer, message_id, int(receipt) | wants & _SOON)
        vault.run("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?)", row)


def owe_receipts(vault: Transaction, owed: Iterable[tuple[Username, MessageId, int]], receipt: Receipts) -> None:
    """Note that, of each (peer, message, receipts wanted), the peer is to hear of this fate, if it asked to."""
    fate = int(receipt)
    rows = [(peer, message_id, fate | wants & _SOON) for peer, message_id, wants in owed if wants & fate]
    vault.run_many("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?)", rows)


def owed_to(vault: Transaction, peer: Username, most: int) -> list[Owed]:
    """Return up to *most* receipts that *peer* is to get."""
    rows = vault.run("SELECT id, fate FROM receipts WHERE peer = ? LIMIT ?", (peer, most)).fetchall()
    return [(MessageId(message_id), fate) for message_id, fate in rows]


def report_of(owed: Iterable[Owed]) -> bytes:
    """Return these receipts as they travel."""
    told: dict[int, list[MessageId]] = defaultdict(list)
    for message_id, fate in owed:
        told[fate & ~_SOON].append(message_id)
    return encode_receipts({Receipts(fate): ids for fate, ids in told.items()})


def were_told(vault: Transaction, peer: Username, owed: Sequence[Owed]) -> None:
    """These receipts are on their way, in this transaction."""
    rows = [(peer, message_id, fate) for message_id, fate in owed]
    vault.run_many("DELETE FROM receipts WHERE peer = ? AND id = ? AND fate = ?", rows)


def owe_retry(vault: Transaction, peer: Username, message_id: MessageId, now_ms: int) -> bool:
    """Note that *peer* is to be asked for this message again; return False if it already was: once is enough."""
    cursor = vault.run("INSERT OR IGNORE INTO retries (peer, id, at) VALUES (?, ?, ?)", (peer, message_id, now_ms))
    return cursor.rowcount > 0


def is_unasked(vault: Transaction, peer: Username, message_id: MessageId) -> bool:
    """Return whether *peer* is still to be asked for this message again."""
    sql = "SELECT 1 FROM retries WHERE peer = ? AND id = ? AND asked = 0"
    return vault.run(sql, (peer, message_id)).fetchone() is not None


def forget_all(vault: Transaction, peer: Username) -> None:
    """Owe *peer* nothing any more: it is to hear nothing of us."""
    vault.run("DELETE FROM receipts WHERE peer = ?", (peer,))
    vault.run("DELETE FROM retries WHERE peer = ?", (peer,))
