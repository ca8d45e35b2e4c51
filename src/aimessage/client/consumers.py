"""Who is shown what: a row goes to one consumer, and comes back, marked, if that one ends without acknowledging it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from aimessage.client import shelf
from aimessage.client.account import Here
from aimessage.client.message import Frame, Message, incoming
from aimessage.client.owed import owe_receipt, owe_receipts
from aimessage.client.pins import identity_of_pin
from aimessage.client.shelf import Content
from aimessage.client.spans import spans
from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Receipts
from aimessage.e2ee.fingerprint import fingerprint
from aimessage.errors import MessageUnknown
from aimessage.types import MessageId, Username, message_id_text

__all__ = [
    "Filter",
    "acknowledge",
    "asked_among",
    "claim",
    "forget_held",
    "give_back",
    "is_unread",
    "is_worth_a_look",
    "mark_shown",
    "one_in",
    "received_before",
    "release_what_is_due",
    "rows_in",
    "settled_among",
    "show_again",
    "stop_awaiting",
    "take",
    "take_answer",
    "tidied",
]

_COLUMNS = "row, sender, id, kind, received_at, content, flags, redelivered"


class Filter(msgspec.Struct, frozen=True):
    """Which messages a consumer wants; None is any."""

    sender: str | None = None
    thread: str | None = None

    def admits(self, message: Message) -> bool:
        """Return whether the consumer wants this one of its sender."""
        return self.thread is None or message.thread == self.thread

    def admits_from(self, sender: str, thread: str | None) -> bool:
        """Return whether the consumer wants what *sender* says in *thread*."""
        return self.sender in (None, sender) and self.thread in (None, thread)


def claim(here: Here, wanted: Filter, limit: int) -> list[tuple[int, Message]]:
    """Take up to *limit* rows that nobody has, oldest first; they are ours until we show or give them back."""
    if not is_worth_a_look(here):
        return []
    with tidied(here) as vault:
        fitting = rows_in(here, vault, ("new",), wanted, 0, limit + 1)
        taken = fitting[:limit]
        take(here, vault, [row for row, _ in taken])
    last = len(taken) - 1
    return [(row, message.with_more(at < last or len(fitting) > limit)) for at, (row, message) in enumerate(taken)]


@contextmanager
def tidied(here: Here) -> Iterator[Transaction]:
    """A lasting transaction; in it, what has waited long enough is let through, and rows of who has ended are free."""
    with here.vault.transaction() as vault:
        shelf.release_due(here, vault, here.now_ms)
        ended = _reclaim(here, vault)
        yield vault
    for owner in ended:
        here.living.bury(owner)


def take(here: Here, vault: Transaction, rows: Iterable[int]) -> None:
    """These rows, which nobody has, are ours until we show or give them back."""
    token = here.living.token
    vault.run_many("UPDATE inbox SET state = 'claimed', consumer = ? WHERE row = ?", [(token, row) for row in rows])


def rows_in(
    here: Here, vault: Transaction, states: Sequence[str], wanted: Filter, after: int, limit: int
) -> list[tuple[int, Message]]:
    """Return up to *limit* rows behind row *after* that are in one of *states* and that *wanted* admits, oldest first.

    Threads are sealed, so each row is opened.
    """
    found: list[tuple[int, Message]] = []
    standings = _Standings(vault)
    marks = ", ".join("?" * len(states))
    while len(found) < limit:
        rows = vault.run(
            f"SELECT {_COLUMNS} FROM inbox WHERE state IN ({marks}) AND row > ? AND (? IS NULL OR sender = ?) "  # noqa: S608 - constants
            "ORDER BY row LIMIT ?",
            (*states, after, wanted.sender, wanted.sender, limit),
        ).fetchall()
        if not rows:
            break
        after = rows[-1][0]
        found += [each for each in (_opened(here, standings, row) for row in rows) if wanted.admits(each[1])]
    return found[:limit]


def one_in(here: Here, vault: Transaction, states: Sequence[str], message_id: MessageId) -> Message | None:
    """Return the message of this id, if it is in one of *states*: itself, if it came after it could not be opened."""
    marks = ", ".join("?" * len(states))
    row = vault.run(
        f"SELECT {_COLUMNS} FROM inbox WHERE id = ? AND state IN ({marks}) "  # noqa: S608 - constants
        "ORDER BY kind = 'undecryptable', row LIMIT 1",
        (message_id, *states),
    ).fetchone()
    return _opened(here, _Standings(vault), row)[1] if row else None


def is_unread(vault: Transaction, row: int) -> bool:
    """Return whether nobody has this row yet."""
    return vault.run("SELECT 1 FROM inbox WHERE row = ? AND state = 'new'", (row,)).fetchone() is not None


def is_worth_a_look(here: Here) -> bool:
    """Return whether any row may have to change hands; most waking is for something else, and need not lock."""
    if here.living.has_left_behind:
        return True
    with here.vault.reading() as vault:
        if vault.run("SELECT 1 FROM inbox WHERE state IN ('new', 'held', 'asked') LIMIT 1").fetchone() is not None:
            return True
        owners = vault.run("SELECT DISTINCT consumer FROM inbox WHERE state IN ('claimed', 'answer')").fetchall()
    return any(not here.living.is_alive(owner) for (owner,) in owners)


def _reclaim(here: Here, vault: Transaction) -> list[str | None]:
    """Free the rows of consumers that have ended, but for those that they noted as shown; return who had ended."""
    owners = vault.run("SELECT DISTINCT consumer FROM inbox WHERE state IN ('claimed', 'answer')").fetchall()
    left_behind: list[str | None] = [*here.living.left_behind()]
    ended = [owner for (owner,) in owners if owner not in left_behind and not here.living.is_alive(owner)]
    ended += left_behind
    for owner in ended:
        _show(vault, owner, here.living.notes_of(owner))
        vault.run(
            "UPDATE inbox SET redelivered = redelivered OR state = 'claimed', state = 'new', consumer = NULL "
            "WHERE consumer IS ? AND state IN ('claimed', 'answer')",
            (owner,),
        )
    return ended


def release_what_is_due(here: Here) -> None:
    """Let through what has waited long enough for what was sent before it; whoever waits for it finds it then."""
    with here.vault.reading() as vault:
        waits = vault.run("SELECT 1 FROM inbox WHERE state IN ('held', 'asked') LIMIT 1").fetchone()
    if waits is not None:
        with here.vault.transaction() as vault:
            shelf.release_due(here, vault, here.now_ms)


def give_back(here: Here, rows: Sequence[int], *, seen: bool = True) -> None:
    """We have not dealt with these rows: whoever comes next gets them, marked if they may have been *seen*."""
    with here.vault.transaction(lasting=False) as vault:
        for row in rows:
            vault.run(
                "UPDATE inbox SET state = 'new', consumer = NULL, redelivered = redelivered OR ? "
                "WHERE row = ? AND state = 'claimed'",
                (seen, row),
            )


def show_again(here: Here, rows: Sequence[int]) -> None:
    """Nobody has seen these rows, although they were marked as shown: they come again, marked."""
    with here.vault.transaction() as vault:
        vault.run_many(
            "UPDATE inbox SET state = 'new', redelivered = 1 WHERE row = ? AND state = 'shown'",
            [(row,) for row in rows],
        )


def mark_shown(here: Here, rows: Sequence[int], *, until_handled: bool = False) -> None:
    """We have been shown these rows; with *until_handled* they stay with us until somebody acknowledges them.

    Rows that another consumer has stay as they are.
    """
    # A power cut may undo this, but not the claim: then these rows come again, marked `redelivered`.
    with here.vault.transaction(lasting=False) as vault:
        _show(vault, here.living.token, rows, until_handled=until_handled)


def _show(vault: Transaction, owner: str | None, rows: Iterable[int], *, until_handled: bool = False) -> None:
    numbers = set(rows)
    if not numbers:
        return
    found = vault.run(
        "SELECT row, sender, id, wants, held FROM inbox WHERE row BETWEEN ? AND ? AND consumer IS ? "
        "AND state IN ('claimed', 'answer')",
        (min(numbers), max(numbers), owner),
    ).fetchall()
    theirs = [columns for columns in found if columns[0] in numbers]
    owe_receipts(vault, [(sender, message_id, wants) for _, sender, message_id, wants, _ in theirs], Receipts.READ)
    for _, sender, message_id, wants, held in theirs:
        if held and not until_handled:  # the one who took it in waited for this
            owe_receipt(vault, sender, message_id, wants, Receipts.DELIVERED)
    if not until_handled:
        shown = spans(columns[0] for columns in theirs)
        vault.run_many("UPDATE inbox SET state = 'shown', consumer = NULL WHERE row BETWEEN ? AND ?", shown)


def acknowledge(here: Here, message_id: MessageId) -> Username:
    """A consumer has dealt with this message, whichever process it is; return its sender. Repeating it is harmless.

    Raises MessageUnknown.
    """
    with here.vault.transaction() as vault:
        found = vault.run(
            "SELECT row, sender, wants, held, state FROM inbox WHERE id = ? "
            "AND state IN ('new', 'claimed', 'answer', 'shown', 'handled', 'dead') "
            "ORDER BY kind = 'undecryptable', row",
            (message_id,),
        ).fetchone()
        if found is None:
            raise MessageUnknown(f"no message {message_id_text(message_id)} has come here")
        row, sender, wants, held, state = found
        if state != "handled":
            if held and state != "shown":
                owe_receipt(vault, sender, message_id, wants, Receipts.DELIVERED)
            owe_receipt(vault, sender, message_id, wants, Receipts.HANDLED)
            vault.run("UPDATE inbox SET state = 'handled', consumer = NULL WHERE row = ?", (row,))
    return Username(sender)


def settled_among(here: Here, keys: Iterable[tuple[str, bytes]]) -> set[tuple[str, bytes]]:
    """Return which of these envelopes, (sender, id), nobody needs the relay's copy of any more."""
    alone = (
        "SELECT 1 FROM inbox INDEXED BY inbox_message WHERE sender = ?1 AND id = ?2 AND (state = 'asked' OR "
        "(held = 1 AND state NOT IN ('shown', 'handled', 'dead')) OR "
        "EXISTS (SELECT 1 FROM retries WHERE peer = ?1 AND id = ?2 AND asked = 0))"
    )
    of_batch = (
        "SELECT 1 FROM inbox INDEXED BY inbox_envelope WHERE sender = ? AND envelope = ? AND held = 1 "
        "AND state NOT IN ('shown', 'handled', 'dead')"
    )
    with here.vault.reading() as vault:
        return {key for key in keys if not any(vault.run(needed, key).fetchone() for needed in (alone, of_batch))}


def asked_among(here: Here, keys: Iterable[tuple[str, bytes]]) -> set[tuple[str, bytes]]:
    """Return which of these messages, (sender, id), did not open and were asked for again, or are to be."""
    asked = (
        "SELECT 1 FROM inbox WHERE sender = ?1 AND id = ?2 AND (state = 'asked' OR "
        "EXISTS (SELECT 1 FROM retries WHERE peer = ?1 AND id = ?2 AND asked = 0))"
    )
    with here.vault.reading() as vault:
        return {key for key in keys if vault.run(asked, key).fetchone()}


def forget_held(here: Here, keys: Iterable[tuple[str, bytes]]) -> None:
    """The relay's copies of these envelopes have been told to go."""
    with here.vault.transaction() as vault:
        for key in keys:
            vault.run("UPDATE inbox INDEXED BY inbox_message SET held = 0 WHERE sender = ? AND id = ?", key)
            vault.run(
                "UPDATE inbox INDEXED BY inbox_envelope SET held = 0 WHERE sender = ? AND envelope = ? AND held = 1",
                key,
            )


def take_answer(here: Here, message_id: MessageId) -> Message | None:
    """Take the answer that came to a message of ours, if it came; it is ours until we show or give it back."""
    with here.vault.reading() as vault:
        found = vault.run("SELECT answer FROM awaits WHERE id = ?", (message_id,)).fetchone()
    if found is None or found[0] is None:
        return None
    with here.vault.transaction() as vault:
        row = vault.run(f"SELECT {_COLUMNS} FROM inbox WHERE row = ?", found).fetchone()  # noqa: S608 - constants
        vault.run("UPDATE inbox SET state = 'claimed', consumer = ? WHERE row = ?", (here.living.token, *found))
        return _opened(here, _Standings(vault), row)[1] if row else None


def stop_awaiting(here: Here, message_id: MessageId) -> None:
    """Nobody waits for this answer any more: when it comes, it is for whoever comes first."""
    with here.vault.transaction() as vault:
        vault.run(  # one that came in this very moment is for whoever comes first, too
            "UPDATE inbox SET state = 'new', consumer = NULL WHERE state = 'answer' "
            "AND row = (SELECT answer FROM awaits WHERE id = ?)",
            (message_id,),
        )
        vault.run("DELETE FROM awaits WHERE id = ?", (message_id,))


def received_before(
    here: Here, vault: Transaction, peer: str | None, before: tuple[int, int], limit: int
) -> list[tuple[tuple[int, int], Message]]:
    """Return the last *limit* messages before a place (ms since 1970, row), each with its own, whoever saw them."""
    rows = vault.run(
        f"SELECT {_COLUMNS} FROM inbox WHERE (received_at, row) < (?1, ?2) AND (?3 IS NULL OR sender = ?3) "  # noqa: S608 - constants
        "AND state NOT IN ('held', 'asked', 'quarantined', 'pending') ORDER BY received_at DESC, row DESC LIMIT ?4",
        (*before, peer, limit),
    ).fetchall()
    return [((row[4], row[0]), _opened(here, _Standings(vault), row)[1]) for row in rows]


_Columns = tuple[int, str, bytes, str, int, bytes, str, int]
_decode = msgspec.msgpack.Decoder(Content).decode


class _Standings:
    """What one reader's transaction knows of senders; each is looked up once."""

    def __init__(self, vault: Transaction) -> None:
        self.vault = vault
        self._known: dict[str, tuple[str | None, str, str]] = {}

    def of(self, sender: str) -> tuple[str | None, str, str]:
        """Return the fingerprint of the key that is pinned, if one is, the trust in it, and the contact."""
        if sender not in self._known:
            pin, trust, contact = self.vault.standing(sender)
            self._known[sender] = fingerprint(identity_of_pin(pin)) if pin else None, trust, contact
        return self._known[sender]


def _opened(here: Here, standings: _Standings, columns: _Columns) -> tuple[int, Message]:
    row, sender, message_id, kind, received_at, sealed, flags, redelivered = columns
    octets = standings.vault.unseal("inbox.content", sender.encode() + message_id, sealed)
    content = _decode(octets)
    pinned, trust, contact = standings.of(sender)
    if pinned != content.fingerprint:
        trust = "changed" if pinned is not None and content.fingerprint else content.trust
    elif trust != "verified":
        trust = content.trust  # as it was when the message came; only a person's word speaks of the past too
    message = incoming(
        Frame(row, Username(sender), here.profile.username, MessageId(message_id), kind, received_at, contact),
        content.body,
        fingerprint=content.fingerprint,
        trust=trust,
        flags=tuple(flags.split()),
        redelivered=bool(redelivered),
    )
    return row, message
