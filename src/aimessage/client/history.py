"""What was said, both ways, in the order of our own clock."""

import re

import msgspec

from aimessage.client import consumers, fates
from aimessage.client.account import Here
from aimessage.client.fates import Fate
from aimessage.client.message import Message
from aimessage.errors import BadValue

__all__ = ["Entry", "history"]

_END = 1 << 62
_SENT = r"([0-9]{1,18})s([0-9a-f]{32})"
_RECEIVED = r"([0-9]{1,18})r([0-9]{1,18})"
_LAST_ID = b"\xff" * 17


class Entry(msgspec.Struct, frozen=True):
    """One message of ours, or one that came; a page before *cursor* ends just before this entry."""

    cursor: str
    sent: Fate | None = None
    received: Message | None = None


def history(here: Here, *, peer: str | None, limit: int, before: str | None) -> list[Entry]:
    """Return the last *limit* entries, the newest last. Raises BadValue: *before* is not a cursor of ours."""
    ours_before, theirs_before = _places(before)
    with here.vault.reading() as vault:
        ours = fates.sent_before(vault, peer, ours_before, limit)
        theirs = consumers.received_before(here, vault, peer, theirs_before, limit)
    entries = [(at, 0, key, Entry(f"{at}s{key.hex()}", sent=fate)) for (at, key), fate in reversed(ours)]
    entries += [(at, 1, b"", Entry(f"{at}r{row}", received=message)) for (at, row), message in reversed(theirs)]
    entries.sort(key=lambda entry: entry[:3])  # stable: of one moment, what came keeps its order
    return [entry for *_, entry in entries[-limit:]]


def _places(before: str | None) -> tuple[tuple[int, bytes], tuple[int, int]]:
    """Return where to go on among ours and theirs; of one moment, ours stand first."""
    if before is None:
        return (_END, b""), (_END, 0)
    if found := re.fullmatch(_SENT, before):
        return (int(found[1]), bytes.fromhex(found[2])), (int(found[1]), 0)
    if found := re.fullmatch(_RECEIVED, before):
        return (int(found[1]), _LAST_ID), (int(found[1]), int(found[2]))
    raise BadValue("this is not a cursor", hint="use the cursor of an earlier entry of: aimessage history --json")
