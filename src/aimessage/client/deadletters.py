"""What a handler could not deal with: counted over restarts, given up after some tries, shown until somebody acts."""

import msgspec

from aimessage.client.account import Here
from aimessage.clock import timestamp
from aimessage.errors import MessageUnknown
from aimessage.types import MessageId, message_id_text

__all__ = ["DeadLetter", "listed", "note_failure", "revive"]


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was given up: *trouble* says in one phrase what went wrong the last time."""

    id: str
    from_: str = msgspec.field(name="from")
    received_at: str | None = None
    tries: int = 0
    trouble: str | None = None


def note_failure(here: Here, row: int, trouble: str, most_tries: int) -> int:
    """Count one failure of a row; at *most_tries* it is dead. Return the count."""
    with here.vault.transaction() as vault:
        vault.run("UPDATE inbox SET tries = tries + 1, trouble = ? WHERE row = ?", (trouble, row))
        found = vault.run("SELECT tries FROM inbox WHERE row = ?", (row,)).fetchone()
        tries = int(found[0]) if found else most_tries
        if tries >= most_tries:
            vault.run("UPDATE inbox SET state = 'dead', consumer = NULL WHERE row = ? AND state = 'claimed'", (row,))
    return tries


def listed(here: Here) -> list[DeadLetter]:
    """Return what was given up, the oldest first."""
    with here.vault.reading() as vault:
        rows = vault.run(
            "SELECT id, sender, received_at, tries, trouble FROM inbox WHERE state = 'dead' ORDER BY row"
        ).fetchall()
    return [
        DeadLetter(message_id_text(MessageId(message_id)), sender, timestamp(received_at), tries, trouble)
        for message_id, sender, received_at, tries, trouble in rows
    ]


def revive(here: Here, message_id: MessageId) -> None:
    """Let the next consumer have it again. Raises MessageUnknown: it is not one that was given up."""
    with here.vault.transaction() as vault:
        cursor = vault.run(
            "UPDATE inbox SET state = 'new', tries = 0, trouble = NULL, redelivered = 1 "
            "WHERE id = ? AND state = 'dead'",
            (message_id,),
        )
        if not cursor.rowcount:
            raise MessageUnknown(
                f"no message {message_id_text(message_id)} was given up here",
                hint="aimessage retry, to see those that were",
            )
