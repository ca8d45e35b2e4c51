"""Whether an agent's resident is there, and telling it to go."""

import asyncio
import os
from pathlib import Path

import msgspec

from aimessage.client.locks import take_lock
from aimessage.client.resident.door import DOOR, answers
from aimessage.client.resident.resident import lock_path
from aimessage.errors import VaultUnavailable

__all__ = ["Seen", "dismiss", "holder", "is_door_there", "look_for", "silent"]

_LAST_SECONDS = 10.0
_POLL_SECONDS = 0.02


class Seen(msgspec.Struct, frozen=True):
    """A resident that answers. *trouble* is what stands between it and the relay, or empty; *sent* counts messages."""

    pid: int
    version: str
    is_linked: bool
    trouble: str
    sent: int


def is_door_there(directory: Path) -> bool:
    """Return whether the agent in *directory* has a socket, be it one that was left behind."""
    return (directory / DOOR).exists()


def look_for(directory: Path) -> Seen | None:
    """Return the resident of the agent in *directory*; None: there is none, or it does not answer."""
    for answer in _tell(directory, b"hello"):
        if answer.get("said") == b"hello":
            told = {name: value.decode("utf-8", "replace") for name, value in answer.items()}
            linked = told["linked"] == "yes"
            return Seen(int(told["pid"]), told["version"], linked, told["trouble"], int(told["sent"]))
    return None


def holder(directory: Path) -> int | None:
    """Return the process that is the resident of the agent in *directory*, whether it answers or not; None: none is.

    0 for one that has only just begun.
    """
    path = lock_path(directory)
    if not path.exists():
        return None
    lock = take_lock(path)
    if lock is not None:
        os.close(lock)
        return None
    told = path.read_text("ascii", "replace")
    return int(told) if told.isdecimal() else 0


async def dismiss(directory: Path) -> bool:
    """Tell the resident of the agent in *directory* to go, and return once it has; False: there was none.

    Raises VaultUnavailable: it does not go.
    """
    if holder(directory) is None:
        return False
    try:
        async with asyncio.timeout(_LAST_SECONDS):
            while holder(directory) is not None:  # it may still be on its way in, and hear nothing yet
                await asyncio.to_thread(_tell, directory, b"stop")
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise silent(directory) from None
    return True


def silent(directory: Path) -> VaultUnavailable:
    """Return what to say of a resident that does not answer."""
    pid = holder(directory)
    return VaultUnavailable("this agent's resident does not answer", hint=f"kill -9 {pid}" if pid else None)


def _tell(directory: Path, word: bytes) -> list[dict[str, bytes]]:
    return list(answers(str(directory), {"ask": word}, last_seconds=_LAST_SECONDS))
