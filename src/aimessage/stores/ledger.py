"""One mailbox, counted: the quotas' rules, shared by every store that keeps its counts in memory."""

from dataclasses import dataclass, field

from aimessage.stores.ports import Posting, Quotas, Refusal
from aimessage.types import Position, Username

__all__ = ["CONTROL", "Ledger", "expired", "expiry", "malformed"]

CONTROL = 1
"""The mail class of control messages: an own quota, whose oldest entry makes room."""


def expiry(posting: Posting, quotas: Quotas) -> int:
    """Return when *posting* expires, in milliseconds since 1970: its own wish, capped by the quota; 0 is never."""
    ttl = quotas.control_ttl_ms if posting.mail_class == CONTROL else quotas.message_ttl_ms
    if ttl == 0:
        return posting.expires_at
    bound = posting.accepted_at + ttl
    return min(posting.expires_at, bound) if posting.expires_at else bound


def malformed(posting: Posting) -> Refusal | None:
    """Return why *posting* can be no store's entry, or None: its numbers and its id come from the wire."""
    if len(posting.message_id) == 16 and 0 <= posting.attempt < 1 << 32 and 0 <= posting.expires_at < 1 << 63:
        return None
    return Refusal("bad_value", "the message id, the attempt or the expiry is out of range")


def expired(expires_at: int, now_ms: int) -> bool:
    """Return whether an entry that lives until *expires_at* (0: for ever) is over."""
    return 0 < expires_at <= now_ms


@dataclass(slots=True)
class _Share:
    messages: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Ledger:
    """Counts of what one mailbox holds; `entries` and `bytes` include control mail, the quotas do not."""

    entries: int = 0
    bytes: int = 0
    controls: dict[Position, None] = field(default_factory=dict)
    _messages: _Share = field(default_factory=_Share)
    _senders: dict[Username, _Share] = field(default_factory=dict)

    def refusal(self, posting: Posting, quotas: Quotas) -> Refusal | None:
        """Return why *posting* does not fit, or None. Control mail always fits."""
        if posting.mail_class == CONTROL:
            return None
        size = len(posting.sealed)
        if _over(self._messages, size, quotas.messages, quotas.bytes):
            return Refusal("mailbox_full", "the recipient's mailbox is full")
        share = self._senders.get(posting.sender)
        # A sender's first message is always within its share, however small the mailbox is.
        if share is not None and _over(share, size, quotas.messages_of_one, quotas.bytes_of_one):
            return Refusal("mailbox_full", "this sender's share of the recipient's mailbox is full")
        return None

    def evict(self, quotas: Quotas) -> Position | None:
        """Return the control entry that must go before one more comes, or None."""
        if quotas.controls and len(self.controls) >= quotas.controls:
            return next(iter(self.controls))
        return None

    def add(self, position: Position, sender: Username, mail_class: int, size: int) -> None:
        """Count a new entry of *size* sealed bytes."""
        self.entries += 1
        self.bytes += size
        if mail_class == CONTROL:
            self.controls[position] = None
            return
        share = self._senders.get(sender)
        if share is None:
            share = self._senders[sender] = _Share()
        share.messages += 1
        share.bytes += size
        self._messages.messages += 1
        self._messages.bytes += size

    def remove(self, position: Position, sender: Username, mail_class: int, size: int) -> None:
        """Count an entry out again."""
        self.entries -= 1
        self.bytes -= size
        if mail_class == CONTROL:
            self.controls.pop(position, None)
            return
        self._messages.messages -= 1
        self._messages.bytes -= size
        share = self._senders[sender]
        share.messages -= 1
        share.bytes -= size
        if not share.messages:
            del self._senders[sender]


def _over(share: _Share, size: int, messages: int, octets: int) -> bool:
    return 0 < messages <= share.messages or 0 < octets < share.bytes + size
