"""The inbox's rows, from their arrival to their consumer.

States: `held` waits a little for what was sent before it, `asked` did not open and was asked for again, `new` is for
whoever comes first, `answer` for the one who asked, `claimed` is with a consumer, `shown` and `handled` are done,
`quarantined` came under a changed key.
"""

from dataclasses import dataclass

import msgspec

from aimessage.client.account import Here
from aimessage.client.order import HOLD_MS, Heard
from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Body
from aimessage.types import MessageId, Username

__all__ = ["ASKED_MS", "Arrival", "Content", "let_through", "put", "release_all", "release_due", "release_following"]

ASKED_MS = 60_000
"""How long we keep silent about a message that did not open and was asked for again."""
_MOVED = "sender, id, attempt, kind, received_at, consumer, content, flags, wants, held, answers, sequence, redelivered"


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What the inbox keeps of a message, sealed at rest."""

    body: Body | None
    sealed: bytes
    fingerprint: str = ""
    trust: str = "first-use"


@dataclass(slots=True)
class Arrival:
    """One new row. *wants*: receipts that its sender asked for; *held*: the relay's copy lives until it is handled.

    *answers* is the id of the message that it answers; *due* ends the states `held` and `asked`, in milliseconds since
    1970.
    """

    sender: Username
    id: MessageId
    attempt: int
    received_at: int
    content: Content
    kind: str = "message"
    state: str = "new"
    flags: str = ""
    sequence: int = 0
    due: int = 0
    wants: int = 0
    held: bool = False
    answers: bytes = b""


def put(vault: Transaction, arrival: Arrival) -> int:
    """Add a row and return its number."""
    key = arrival.sender.encode() + arrival.id
    content = vault.seal("inbox.content", key, msgspec.msgpack.encode(arrival.content))
    cursor = vault.run(
        "INSERT INTO inbox (sender, id, attempt, kind, state, received_at, content, flags, sequence, due, wants, held, "
        "answers) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(arrival.sender, arrival.id, arrival.attempt, arrival.kind, arrival.state, arrival.received_at, content),
            *(arrival.flags, arrival.sequence, arrival.due, arrival.wants, int(arrival.held), arrival.answers),
        ),
    )
    return int(cursor.lastrowid or 0)


def let_through(here: Here, vault: Transaction, row: int) -> None:
    """A row's turn has come: it goes to whoever asked for this answer and still lives, or to whoever comes first."""
    found = vault.run(
        "SELECT awaits.id, awaits.owner FROM inbox JOIN awaits ON awaits.id = inbox.answers AND awaits.peer = "
        "inbox.sender WHERE inbox.row = ? AND awaits.answer IS NULL",
        (row,),
    ).fetchone()
    state, consumer = "new", None
    if found is not None and here.living.is_alive(found[1]):
        state, consumer = "answer", found[1]
        vault.run("UPDATE awaits SET answer = ? WHERE id = ?", (row, found[0]))
    vault.run("UPDATE inbox SET state = ?, consumer = ?, due = 0 WHERE row = ?", (state, consumer, row))


def release_following(here: Here, vault: Transaction, sender: Username, heard: Heard) -> Heard:
    """Let through what waited for the message before it; return what comes next."""
    while True:
        found = vault.run(
            "SELECT row FROM inbox WHERE sender = ? AND state = 'held' AND sequence = ?", (sender, heard.next)
        ).fetchone()
        if found is None:
            return heard
        _move_up(here, vault, found[0], "")
        heard = heard.after(heard.next)


def release_all(here: Here, vault: Transaction, sender: Username, heard_next: int, up_to: int | None = None) -> int:
    """Let through what waits from *sender* (up to a sequence), in order, each gap flagged; return what comes next."""
    rows = vault.run(
        "SELECT row, sequence FROM inbox WHERE sender = ?1 AND state = 'held' AND (?2 IS NULL OR sequence <= ?2) "
        "ORDER BY sequence",
        (sender, up_to),
    ).fetchall()
    for row, sequence in rows:
        _move_up(here, vault, row, "gap" if sequence > heard_next else "")
        heard_next = max(heard_next, sequence + 1)
    return heard_next


def release_due(here: Here, vault: Transaction, now_ms: int) -> None:
    """Let through what has waited long enough; a clock that was set back makes nobody wait for years."""
    rows = vault.run(
        "SELECT sender, state, max(sequence) FROM inbox WHERE state IN ('held', 'asked') "
        "AND due NOT BETWEEN ? AND ? GROUP BY sender, state",
        (now_ms + 1, now_ms + max(HOLD_MS, ASKED_MS)),
    ).fetchall()
    for sender, state, sequence in rows:
        if state == "held":
            _give_up_gap(here, vault, Username(sender), sequence)
    vault.run(
        "UPDATE inbox SET state = 'new' WHERE state = 'asked' AND due NOT BETWEEN ? AND ?",
        (now_ms + 1, now_ms + ASKED_MS),
    )


def _give_up_gap(here: Here, vault: Transaction, sender: Username, up_to: int) -> None:
    (heard_vault, heard_next) = vault.run(
        "SELECT heard_vault, heard_next FROM peers WHERE name = ?", (sender,)
    ).fetchone()
    following = release_all(here, vault, sender, heard_next, up_to)
    heard = release_following(here, vault, sender, Heard(heard_vault, following))
    vault.run("UPDATE peers SET heard_next = ? WHERE name = ?", (heard.next, sender))


def _move_up(here: Here, vault: Transaction, row: int, flag: str) -> None:
    """Give a row a new number, behind all that is there: consumers read by number."""
    cursor = vault.run(
        f"INSERT INTO inbox ({_MOVED}, state) SELECT {_MOVED}, 'new' FROM inbox WHERE row = ?",  # noqa: S608 - constants
        (row,),
    )
    moved = int(cursor.lastrowid or 0)
    vault.run("DELETE FROM inbox WHERE row = ?", (row,))
    vault.run("UPDATE inbox SET flags = trim(flags || ' ' || ?) WHERE row = ?", (flag, moved))
    let_through(here, vault, moved)
