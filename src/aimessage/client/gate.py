"""Who may write to us: strangers are let in, wait for a word, or are turned away, as the gate says.

Contacts: `none` nobody has judged, `requested` we asked and it has not written yet, `pending` its messages wait for a
word, `accepted`, `blocked`. What waits is in the inbox in state `pending`, and no consumer sees it. A stranger that
waits, one that is blocked and one whose messages nobody collects look alike from outside: nothing is told to any.
"""

from collections.abc import Callable
from enum import Enum, StrEnum, auto
from typing import Final

from aimessage.client import fates, shelf
from aimessage.client.account import Here
from aimessage.client.owed import forget_all, owe_receipt
from aimessage.client.shelf import Arrival, Content
from aimessage.client.transaction import Peer, Transaction
from aimessage.e2ee.bodies import Receipts
from aimessage.errors import BadValue, Blocked
from aimessage.types import MessageId, Username

__all__ = [
    "MESSAGES_IN_ALL",
    "MESSAGES_OF_ONE",
    "STRANGERS",
    "Policy",
    "Ruling",
    "accept",
    "admit_by_writing",
    "announce",
    "block",
    "parse_policy",
    "policy_of",
    "ruling_on",
    "save_policy",
]

MESSAGES_OF_ONE: Final = 8
"""Messages of one stranger that wait for a word; further ones are not kept, and show as a gap once it is accepted."""
MESSAGES_IN_ALL: Final = 400
"""Messages of all strangers that wait."""
STRANGERS: Final = 100
"""Strangers that wait; of any other nothing is kept at all, as if it had never written."""
_BYTES_IN_ALL: Final = 8 << 20


class Policy(StrEnum):
    """OPEN: strangers are heard. CONTACTS: they wait for a word. CLOSED: they are not heard, and leave no trace."""

    OPEN = "open"
    CONTACTS = "contacts"
    CLOSED = "closed"


class Ruling(Enum):
    """What becomes of a message. ADMIT and HOLD keep it; TURN_AWAY and DISCARD keep only the state of the session."""

    ADMIT = auto()
    HOLD = auto()
    TURN_AWAY = auto()
    DISCARD = auto()
    IGNORE = auto()
    """As if it had never come: nothing at all is kept."""


def parse_policy(text: str) -> Policy:
    """Return the policy of this name. Raises BadValue."""
    try:
        return Policy(text)
    except ValueError:
        raise BadValue("this is no contact policy", hint="use open, contacts or closed") from None


def policy_of(vault: Transaction) -> Policy:
    """Return the gate of this agent."""
    return Policy((vault.meta("gate") or b"open").decode())


def save_policy(vault: Transaction, policy: Policy) -> None:
    """Set the gate; whoever waits goes on waiting."""
    if policy_of(vault) is not policy:
        vault.bump("state_changes")
    vault.save_meta("gate", policy.value.encode())


def ruling_on(vault: Transaction, policy: Callable[[], Policy], peer: Peer) -> Ruling:
    """Return what becomes of a message of *peer*; *policy* is asked where it matters: for strangers."""
    if peer.contact == "blocked":
        return Ruling.DISCARD
    if peer.is_contact or policy() is Policy.OPEN:
        return Ruling.ADMIT
    if policy() is Policy.CLOSED:
        return Ruling.IGNORE
    if peer.contact != "pending":
        (waiting,) = vault.run("SELECT count(*) FROM peers WHERE contact = 'pending'").fetchone()
        return Ruling.HOLD if waiting < STRANGERS else Ruling.IGNORE
    of_one = vault.run(
        "SELECT count(*) FROM inbox WHERE sender = ? AND state IN ('pending', 'held')", (peer.name,)
    ).fetchone()[0]
    in_all, size = vault.run(
        "SELECT count(*), coalesce(sum(length(content)), 0) FROM inbox WHERE state = 'pending'"
    ).fetchone()
    full = of_one >= MESSAGES_OF_ONE or in_all >= MESSAGES_IN_ALL or size >= _BYTES_IN_ALL
    return Ruling.TURN_AWAY if full else Ruling.HOLD


def announce(here: Here, vault: Transaction, peer: Peer, fingerprint: str, now_ms: int) -> None:
    """Let a new stranger wait, and tell whoever reads next that it does."""
    peer.contact = "pending"
    vault.save_peer(peer)  # at once: the strangers behind it in this batch count it
    content = Content(None, b"", fingerprint, peer.trust)
    shelf.put(vault, Arrival(peer.name, MessageId(here.entropy(16)), 0, now_ms, content, kind="contact_request"))


def admit_by_writing(here: Here, vault: Transaction, name: Username, contact: str = "accepted") -> None:
    """We write to *name*: its answers are welcome, and so is what of it waits. Raises Blocked: we block it."""
    known = vault.contact_of(name)
    if known == "blocked":
        raise Blocked(f"{name} is blocked here; nothing was sent", hint=f"aimessage contacts accept {name}")
    if known in ("none", "pending"):
        _judge(here, vault, name, contact if known == "none" else "accepted")


def shut_again(vault: Transaction, name: Username) -> None:
    """Nobody has this *name*: whoever takes it later is a stranger, though we have written to it."""
    vault.run(
        "UPDATE peers SET contact = 'none' WHERE name = ? AND pin IS NULL AND contact IN ('requested', 'accepted')",
        (name,),
    )


def accept(here: Here, vault: Transaction, name: Username) -> int:
    """Hear *name* from now on; return how many messages of it had waited. They come next, in their order."""
    return _judge(here, vault, name, "accepted")


def _judge(here: Here, vault: Transaction, name: Username, contact: str) -> int:
    peer = vault.peer(here.address(name))
    peer.contact, peer.turned_away = contact, 0
    vault.save_peer(peer)
    vault.run("DELETE FROM inbox WHERE sender = ? AND kind = 'contact_request' AND state = 'new'", (name,))
    waiting = vault.run(
        "SELECT row, id, wants FROM inbox WHERE sender = ? AND state = 'pending' ORDER BY row", (name,)
    ).fetchall()
    for row, message_id, wants in waiting:
        owe_receipt(vault, name, MessageId(message_id), wants, Receipts.DELIVERED)
        shelf.move_up(here, vault, row)
    return len(waiting)


def block(here: Here, vault: Transaction, name: Username) -> None:
    """Hear nothing of *name* from now on, and drop what nobody has seen yet, both ways; nobody is told."""
    peer = vault.peer(here.address(name))
    peer.contact, peer.turned_away = "blocked", 0
    vault.save_peer(peer)
    states = "'pending', 'held', 'asked', 'new', 'answer', 'dead', 'quarantined'"
    vault.run(f"DELETE FROM inbox WHERE sender = ? AND state IN ({states})", (name,))  # noqa: S608 - constants
    forget_all(vault, name)
    fates.settle_all_to(here, vault, name, Blocked.code)
