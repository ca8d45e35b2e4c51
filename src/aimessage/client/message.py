"""What a reader gets: one message, with where it comes from and how far to trust it. Shape: the CLI's JSON."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime

__all__ = ["Message", "timestamp"]


def timestamp(milliseconds: int) -> str | None:
    """Return RFC 3339 in UTC, whole seconds; None for 0."""
    if not milliseconds:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # a peer may claim any number
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Message:
    """One incoming message. `content_trust` is always untrusted: `from_trust` speaks of the key only."""

    id: str
    cursor: str
    from_: str
    from_fingerprint: str | None
    from_trust: str
    to: str
    received_at: str | None
    type: str = "message"
    contact: str = "accepted"
    room: str | None = None
    thread: str | None = None
    reply_to: str | None = None
    sent_at: str | None = None
    expires_at: str | None = None
    kind: str = "text"
    text: str | None = None
    data: object = None
    attachments: tuple[str, ...] = ()
    expects_reply: bool = True
    hops: int = 0
    redelivered: bool = False
    content_trust: str = "untrusted"
    flags: tuple[str, ...] = ()
    truncated: bool = False
    bytes: int = 0
    more_waiting: bool = False

    def as_json(self) -> dict[str, object]:
        """Return the object that `listen --json` prints, `v` first."""
        values: dict[str, object] = {"v": 1, "type": self.type}
        for field in fields(self):
            value = getattr(self, field.name)
            values[field.name.rstrip("_")] = list(value) if isinstance(value, tuple) else value
        return values
