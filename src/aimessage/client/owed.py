"""What we owe a peer's program: receipts of its messages, and requests for those that did not open; sent later."""

from collections.abc import Iterable

from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Receipts
from aimessage.types import MessageId, Username

__all__ = ["forget_all", "owe_receipt", "owe_receipts", "owe_retry"]


def owe_receipt(vault: Transaction, peer: Username, message_id: MessageId, wants: int, receipt: Receipts) -> None:
    """Note that *peer* is to hear of this fate, if it asked to."""
    if wants & int(receipt):  # as plain numbers: a set of flags is slow to intersect
        vault.run("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?)", (peer, message_id, int(receipt)))


def owe_receipts(vault: Transaction, owed: Iterable[tuple[Username, MessageId, int]], receipt: Receipts) -> None:
    """Note that, of each (peer, message, receipts wanted), the peer is to hear of this fate, if it asked to."""
    fate = int(receipt)
    rows = [(peer, message_id, fate) for peer, message_id, wants in owed if wants & fate]
    vault.run_many("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?)", rows)


def owe_retry(vault: Transaction, peer: Username, message_id: MessageId, now_ms: int) -> bool:
    """Note that *peer* is to be asked for this message again; return False if it already was: once is enough."""
    cursor = vault.run("INSERT OR IGNORE INTO retries (peer, id, at) VALUES (?, ?, ?)", (peer, message_id, now_ms))
    return cursor.rowcount > 0


def forget_all(vault: Transaction, peer: Username) -> None:
    """Owe *peer* nothing any more: it is to hear nothing of us."""
    vault.run("DELETE FROM receipts WHERE peer = ?", (peer,))
    vault.run("DELETE FROM retries WHERE peer = ?", (peer,))
