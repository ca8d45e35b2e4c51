"""Postings, accounts and a clock for tests of the stores."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aimessage.stores.pages import all_entries
from aimessage.stores.ports import Mailboxes, Posting, Receipt, Refusal, Registered, Stored
from aimessage.types import MessageId, Username, VaultId

__all__ = [
    "ALICE", "BOB", "NOW", "VAULT", "ManualClock", "account", "accepted", "contents", "flip_where", "name",
    "names_in", "number", "post", "tree",
]  # fmt: skip

NOW = 1_800_000_000_000
ALICE = Username("alice")
BOB = Username("bob")
VAULT = VaultId(b"v" * 16)


@dataclass
class ManualClock:
    """Stands still until it is told to advance."""

    seconds: float = 1000.0

    def now(self) -> datetime:
        """Return the wall-clock time."""
        return datetime(2027, 1, 15, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Return the seconds so far."""
        return self.seconds


def name(value: int) -> Username:
    """Return one of many usernames, in order."""
    return Username(f"agent-{value:05}")


def number(value: int) -> MessageId:
    """Return one of many message ids."""
    return MessageId(value.to_bytes(16, "big"))


def post(
    value: int, *, owner: Username = ALICE, sender: Username = BOB, control: bool = False, ttl: int = 0, size: int = 8
) -> Posting:
    """Return the posting with message id *value*, of *size* sealed bytes; *ttl* in milliseconds."""
    expires_at = NOW + ttl if ttl else 0
    return Posting(
        owner, sender, number(value), 0, int(control), NOW, expires_at, value.to_bytes(4, "big") * (size // 4)
    )


def account(username: Username, key: bytes = b"k" * 32) -> Registered:
    """Return an account that *key* owns."""
    return Registered(username, key, b"bundle", VAULT, 1, NOW)


def accepted(answer: Receipt | Refusal) -> Receipt:
    """Return *answer*, which must be a receipt."""
    assert isinstance(answer, Receipt), answer
    return answer


async def contents(boxes: Mailboxes, owner: Username = ALICE, *, after: int = 0, now_ms: int = NOW) -> list[Stored]:
    """Return what the mailbox holds, page by page."""
    return [entry async for entry in all_entries(boxes, owner, after=after, now_ms=now_ms)]


def flip_where(directory: Path, octets: bytes) -> Path:
    """Flip one bit of the one table in *directory* that holds *octets*, in the midst of them; return the table.

    Only that midst is looked for: compression may have found an end of them, with what stands beside it, elsewhere.
    """
    octets = octets[len(octets) // 4 : -(len(octets) // 4)]
    [table] = [path for path in directory.glob("*.sst") if octets in path.read_bytes()]
    with table.open("r+b") as file:
        at = table.read_bytes().index(octets) + len(octets) // 2
        file.seek(at)
        [octet] = file.read(1)
        file.seek(at)
        file.write(bytes([octet ^ 0x10]))
    return table


def names_in(directory: Path) -> list[str]:
    """Return the names of what lies directly in *directory*, in order."""
    return sorted(path.name for path in directory.iterdir())


def tree(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return what lies in *directory*: each file's time of change, inode and content."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }
