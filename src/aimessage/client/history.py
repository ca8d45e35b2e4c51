"""What was said, both ways, in the order of our own clock."""

from dataclasses import dataclass

from aimessage.client import consumers, fates
from aimessage.client.account import Here
from aimessage.client.fates import Fate
from aimessage.client.message import Message
from aimessage.errors import BadValue

__all__ = ["Entry", "history"]

_END = 1 << 62


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of ours, or one that came; *cursor* is where the page before this entry ends."""

    cursor: str
    sent: Fate | None = None
    received: Message | None = None


def history(here: Here, *, peer: str | None, limit: int, before: str | None) -> list[Entry]:
    """Return *limit* entries, the newest last, or a few more where several share a moment.

    Raises BadValue: *before* is not a cursor of ours.
    """
    if before is not None and not before.isdecimal():
        raise BadValue("this is not a cursor", hint="use the cursor of an earlier history entry")
    at = int(before) if before else _END
    with here.vault.reading() as vault:
        ours = fates.sent_between(vault, peer, at, limit)
        theirs = consumers.received_between(here, vault, peer, at, limit)
    entries = [(time, Entry(str(time), sent=fate)) for time, fate in ours]
    entries += [(time, Entry(str(time), received=message)) for time, message in theirs]
    entries.sort(key=lambda pair: pair[0])  # stable: of one moment, each side's order stays
    if len(entries) > limit:
        first = entries[-limit][0]  # a page never ends between two of the same moment
        entries = [pair for pair in entries if pair[0] >= first]
    return [entry for _, entry in entries]
