"""The inbox's rows, from their arrival to their consumer.

States: `held` waits a little for what was sent before it, `asked` did not open and was asked for again, `pending` is a
stranger's and waits for a word, `new` is for whoever comes first, `answer` for the one who asked, `claimed` is with a
consumer, `dead` was given up by a handler, `shown` and `handled` are done, `quarantined`
came under a changed key.
"""

import msgspec

from aimessage.client.account import Here
from aimessage.client.order import HOLD_MS, Heard
from aimessage.client.transaction import Transaction
from aimessage.e2ee.bodies import Body
from aimessage.types import MessageId, Username

__all__ = [
    "ASKED_MS",
    "Arrival",
    "Content",
    "count_held",
    "has_heard",
    "has_held",
    "has_unread",
    "heard_of",
    "is_asked_for",
    "let_through",
    "move_up",
    "put",
    "release_due",
    "release_early",
    "release_following",
    "save_heard",
]

ASKED_MS = 60_000
"""How long we keep silent about a message that did not open and was asked for again."""
_VAULTS = 8  # of one sender whose order is remembered
_MOVED = (
    "sender, id, attempt, kind, received_at, consumer, content, flags, wants, held, answers, vault, sequence, "
    "redelivered, envelope"
)


class Content(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the inbox keeps of a message, sealed at rest."""

    body: Body | None
    sealed: bytes
    fingerprint: str = ""
    trust: str = "first-use"


class Arrival(msgspec.Struct, gc=False):
    """One new row. *wants*: receipts that its sender asked for; *held*: the relay's copy lives until it is handled.

    *answers* is the id of the message that it answers, *envelope* that of the batch in which it came. *due* ends the
    states `held` and `asked`, in milliseconds since 1970.
    """

    sender: Username
    id: MessageId
    attempt: int
    received_at: int
    content: Content
    kind: str = "message"
    state: str = "new"
    flags: str = ""
    vault: bytes = b""
    sequence: int = 0
    due: int = 0
    wants: int = 0
    held: bool = False
    answers: bytes = b""
    consumer: str | None = None
    envelope: bytes | None = None


def put(vault: Transaction, arrival: Arrival) -> int:
    """Add a row and return its number."""
    key = arrival.sender.encode() + arrival.id
    content = vault.seal("inbox.content", key, msgspec.msgpack.encode(arrival.content))
    cursor = vault.run(
        "INSERT INTO inbox (sender, id, attempt, kind, state, received_at, content, flags, sequence, due, wants, held, "
        "answers, vault, consumer, envelope) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(arrival.sender, arrival.id, arrival.attempt, arrival.kind, arrival.state, arrival.received_at, content),
            *(arrival.flags, arrival.sequence, arrival.due, arrival.wants, int(arrival.held)),
            *(arrival.answers, arrival.vault, arrival.consumer, arrival.envelope),
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
    if _waits_for_a_word(vault, row):
        state = "pending"
    elif found is not None and here.living.is_alive(found[1]):
        state, consumer = "answer", found[1]
        vault.run("UPDATE awaits SET answer = ? WHERE id = ?", (row, found[0]))
    vault.run("UPDATE inbox SET state = ?, consumer = ?, due = 0 WHERE row = ?", (state, consumer, row))


def is_asked_for(vault: Transaction, sender: Username, answers: bytes) -> bool:
    """Return whether somebody waits, or has waited, for *sender*'s answer to this message of ours."""
    sql = "SELECT 1 FROM awaits WHERE id = ? AND peer = ? AND answer IS NULL"
    return bool(answers) and vault.run(sql, (answers, sender)).fetchone() is not None


def has_held(vault: Transaction, sender: Username) -> bool:
    """Return whether anything of *sender* waits for what was sent before it."""
    sql = "SELECT 1 FROM inbox WHERE sender = ? AND state = 'held' LIMIT 1"
    return vault.run(sql, (sender,)).fetchone() is not None


def count_held(vault: Transaction, sender: Username) -> int:
    """Return how many messages of *sender* wait for what was sent before them."""
    sql = "SELECT count(*) FROM inbox WHERE sender = ? AND state = 'held'"
    return int(vault.run(sql, (sender,)).fetchone()[0])


def has_unread(vault: Transaction) -> bool:
    """Return whether anything is there for whoever comes first."""
    return vault.run("SELECT 1 FROM inbox WHERE state = 'new' LIMIT 1").fetchone() is not None


def _waits_for_a_word(vault: Transaction, row: int) -> bool:
    """Return whether this row's sender is a stranger whom nobody has accepted yet."""
    return (
        vault.run(
            "SELECT 1 FROM inbox JOIN peers ON peers.name = inbox.sender WHERE row = ? AND contact = 'pending'", (row,)
        ).fetchone()
        is not None
    )


def heard_of(vault: Transaction, sender: Username, vault_id: bytes) -> Heard | None:
    """Return what we have heard of one vault of a sender, if anything."""
    found = vault.run("SELECT next FROM heard WHERE peer = ? AND vault = ?", (sender, vault_id)).fetchone()
    return Heard(vault_id, found[0]) if found else None


def has_heard(vault: Transaction, sender: Username) -> bool:
    """Return whether we have heard of any vault of this sender."""
    return vault.run("SELECT 1 FROM heard WHERE peer = ? LIMIT 1", (sender,)).fetchone() is not None


def save_heard(vault: Transaction, sender: Username, heard: Heard, now_ms: int) -> None:
    """Keep what we have heard; of a sender with many vaults, the newest few."""
    known = vault.run(
        "UPDATE heard SET next = ?, at = ? WHERE peer = ? AND vault = ?", (heard.next, now_ms, sender, heard.vault_id)
    )
    if known.rowcount:
        return
    vault.run("INSERT INTO heard VALUES (?, ?, ?, ?)", (sender, heard.vault_id, heard.next, now_ms))
    vault.run(
        "DELETE FROM heard WHERE peer = ?1 AND vault IN (SELECT vault FROM heard WHERE peer = ?1 "
        "ORDER BY at DESC, vault = ?2 DESC LIMIT -1 OFFSET ?3)",
        (sender, heard.vault_id, _VAULTS),
    )


def release_following(here: Here, vault: Transaction, sender: Username, heard: Heard) -> Heard:
    """Let through what waited for the message before it; return what comes next."""
    while True:
        found = vault.run(
            "SELECT row FROM inbox WHERE sender = ? AND state = 'held' AND vault = ? AND sequence = ?",
            (sender, heard.vault_id, heard.next),
        ).fetchone()
        if found is None:
            return heard
        move_up(here, vault, found[0])
        heard = heard.after(heard.next)


def release_early(here: Here, vault: Transaction, sender: Username) -> None:
    """Let through all of *sender* that waits for what was sent before it."""
    sql = "SELECT vault, max(sequence) FROM inbox WHERE sender = ? AND state = 'held' GROUP BY vault"
    for vault_id, sequence in vault.run(sql, (sender,)).fetchall():
        _give_up_gap(here, vault, sender, vault_id, sequence)


def release_due(here: Here, vault: Transaction, now_ms: int) -> None:
    """Let through what has waited long enough; a clock that was set back makes nobody wait for years."""
    overdue = vault.run(
        "SELECT sender, vault, max(sequence) FROM inbox WHERE state = 'held' AND due NOT BETWEEN ? AND ? "
        "GROUP BY sender, vault",
        (now_ms + 1, now_ms + HOLD_MS),
    ).fetchall()
    for sender, vault_id, sequence in overdue:
        _give_up_gap(here, vault, Username(sender), vault_id, sequence)
    vault.run(
        "UPDATE inbox SET state = 'new' WHERE state = 'asked' AND due NOT BETWEEN ? AND ?",
        (now_ms + 1, now_ms + ASKED_MS),
    )


def _give_up_gap(here: Here, vault: Transaction, sender: Username, vault_id: bytes, up_to: int) -> None:
    """Let through what waits up to a sequence, in order, each gap flagged, and what follows it."""
    heard = heard_of(vault, sender, vault_id) or Heard(vault_id, 1)
    rows = vault.run(
        "SELECT row, sequence FROM inbox WHERE sender = ? AND state = 'held' AND vault = ? AND sequence <= ? "
        "ORDER BY sequence",
        (sender, vault_id, up_to),
    ).fetchall()
    for row, sequence in rows:
        move_up(here, vault, row, "gap" if sequence > heard.next else "")
        heard = heard.after(sequence)
    save_heard(vault, sender, release_following(here, vault, sender, heard), here.now_ms)


def move_up(here: Here, vault: Transaction, row: int, flag: str = "") -> None:
    """Give a row a new number, behind all that is there: consumers read by number."""
    cursor = vault.run(
        f"INSERT INTO inbox ({_MOVED}, state) SELECT {_MOVED}, 'new' FROM inbox WHERE row = ?",  # noqa: S608 - constants
        (row,),
    )
    moved = int(cursor.lastrowid or 0)
    vault.run("DELETE FROM inbox WHERE row = ?", (row,))
    vault.run("UPDATE inbox SET flags = trim(flags || ' ' || ?) WHERE row = ?", (flag, moved))
    let_through(here, vault, moved)
