"""The loop guard: agents that answer each other for ever stop, because both ends count.

Hops grow with each reply; who answers cannot claim fewer than our own message had. A message is automatic from its
second hop on: a person, or an `ask` and its answer, never get there. Spec: docs/spec/bodies.md §5.
"""

from datetime import timedelta
from typing import Final

import msgspec

from aimessage.client.letter import Summary
from aimessage.client.shelf import Content
from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Body
from aimessage.errors import LoopStopped
from aimessage.types import Username

__all__ = ["AUTOMATIC_HOPS", "MOST_AUTOMATIC", "MOST_HOPS", "count_sent", "heard", "is_over", "true_hops"]

MOST_HOPS: Final = 16
"""Replies to replies before an exchange stops."""
AUTOMATIC_HOPS: Final = 2
MOST_AUTOMATIC: Final = 20
"""Automatic messages a minute that one pair of agents exchanges, both ways together."""
_MINUTE_MS: Final = 60_000


def count_sent(vault: Transaction, recipient: Username, body: Body, now_ms: int) -> Body:
    """Return *body* with its true hops, counted to this minute. Raises LoopStopped: the exchange has to end here."""
    hops = body.hops
    if body.reply_to:
        row = vault.run(
            "SELECT content FROM inbox WHERE sender = ? AND id = ? AND kind = 'message' LIMIT 1",
            (recipient, body.reply_to),
        ).fetchone()
        if row is not None:
            octets = vault.unseal("inbox.content", recipient.encode() + body.reply_to, row[0])
            answered = msgspec.msgpack.decode(octets, type=Content).body
            hops = max(hops, answered.hops + 1) if answered else hops
    if hops > MOST_HOPS:
        raise LoopStopped(f"this exchange has gone on for {MOST_HOPS} replies and stops here; nothing was sent")
    if hops >= AUTOMATIC_HOPS:
        free_in = _free_in(vault, recipient, now_ms)
        if free_in:
            raise LoopStopped(
                f"we and {recipient} have exchanged {MOST_AUTOMATIC} automatic messages in a minute; nothing was sent",
                retry_after=timedelta(milliseconds=free_in),
            )
        _count(vault, recipient, now_ms)
    return msgspec.structs.replace(body, hops=hops)


def true_hops(vault: Transaction, sender: Username, body: Body) -> Body:
    """Return what a peer sent, with no fewer hops than our message that it answers had, and one more."""
    if not body.reply_to:
        return body
    row = vault.run("SELECT summary FROM sent WHERE id = ? AND peer = ?", (body.reply_to, sender)).fetchone()
    if row is None or row[0] is None:
        return body
    ours = msgspec.msgpack.decode(vault.unseal("sent.summary", body.reply_to, row[0]), type=Summary)
    return msgspec.structs.replace(body, hops=max(body.hops, ours.hops + 1))


def heard(vault: Transaction, sender: Username, body: Body, now_ms: int) -> bool:
    """Count a message that came; return whether it breaks the limits, which a program of ours would not have sent."""
    if body.hops < AUTOMATIC_HOPS:
        return False
    too_many = bool(_free_in(vault, sender, now_ms))
    if not too_many:  # what is refused is not counted: the table stays small, and the minute ends
        _count(vault, sender, now_ms)
    return too_many or is_over(body.hops)


def is_over(hops: int) -> bool:
    """Return whether this many hops are more than an exchange may have."""
    return hops > MOST_HOPS


def _count(vault: Transaction, peer: Username, now_ms: int) -> None:
    vault.run("INSERT INTO automatic (peer, at) VALUES (?, ?)", (peer, now_ms))


def _free_in(vault: Transaction, peer: Username, now_ms: int) -> int:
    """Return in how many milliseconds the pair may exchange another automatic message, 0 for now."""
    # Both bounds: a clock that was set back must not make the count last for years.
    vault.run("DELETE FROM automatic WHERE at NOT BETWEEN ? AND ?", (now_ms - _MINUTE_MS + 1, now_ms))
    count, oldest = vault.run("SELECT count(*), min(at) FROM automatic WHERE peer = ?", (peer,)).fetchone()
    return oldest + _MINUTE_MS - now_ms if count >= MOST_AUTOMATIC else 0
