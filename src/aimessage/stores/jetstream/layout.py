"""The streams of one store and the subjects in them; made once, the same for every relay on it."""

from dataclasses import dataclass
from zlib import crc32

from aimessage.types import MessageId, Username, VaultId

__all__ = ["BUDGETS", "HERE", "PAIRS", "PARTITIONS", "RECORDS", "Place", "mail_stream", "mailbox", "pair", "record"]

PARTITIONS = 16
"""Streams that share the mailboxes; written into the store when it is made."""

_PREFIX = "aimessage"
RECORDS = f"{_PREFIX}-records"
PAIRS = f"{_PREFIX}-pairs"
HERE = f"{_PREFIX}-here"
BUDGETS = f"{_PREFIX}-budgets"


def mail_stream(partition: int) -> str:
    """Return the name of the stream of one partition."""
    return f"{_PREFIX}-mail-{partition:02}"


def mailbox(owner: Username, partitions: int) -> tuple[str, str]:
    """Return the stream of a mailbox and the start of its subjects, up to the last dot."""
    partition = crc32(owner.encode()) % partitions
    return mail_stream(partition), f"{_PREFIX}.mail.{partition:02}.{owner}"


def record(kind: str, *names: str) -> str:
    """Return the subject of one record."""
    return ".".join([_PREFIX, "record", kind, *names])


def pair(owner: Username, vault_id: VaultId, digest: str) -> str:
    """Return the subject of one one-time pair; *digest* `>` for all of a vault's."""
    return f"{_PREFIX}.pair.{owner}.{vault_id.hex()}.{digest}"


@dataclass(frozen=True, slots=True)
class Place:
    """What the subject of one entry says: `…OWNER.SENDER.IDATTEMPT.CLASS.SIZE`.

    The engine keeps (sender, id, attempt) unique, and a list of subjects is enough to count a mailbox by.
    """

    owner: Username
    sender: Username
    message_id: MessageId
    attempt: int
    mail_class: int
    size: int

    @property
    def key(self) -> str:
        """What no two entries of one mailbox share."""
        return f"{self.sender}.{self.message_id.hex()}{self.attempt:08x}"

    @property
    def tail(self) -> str:
        """The subject behind that of the mailbox."""
        return f"{self.key}.{self.mail_class}.{self.size}"

    @classmethod
    def of(cls, subject: str) -> "Place":
        """Return the place that *subject* names. Raises ValueError."""
        *_, owner, sender, identity, mail_class, size = subject.split(".")
        octets = bytes.fromhex(identity)
        return cls(
            Username(owner),
            Username(sender),
            MessageId(octets[:16]),
            int.from_bytes(octets[16:], "big"),
            int(mail_class),
            int(size),
        )
