"""Reading a store from end to end: does every block read, every record decode, and every index row lead somewhere?

Nothing is changed. Each kind of key is read once, in order. Where a block does not read, what follows is read owner by
owner, so that the damage gets the names of those it hits and everybody else is still judged. In the end the counts are
compared: every entry has found its own index rows, so equal numbers leave no row that leads nowhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from aimessage.errors import StoreDamaged
from aimessage.octets import u64
from aimessage.stores.ports import Findings
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.mailbox import decode_entry, indexed_below
from aimessage.stores.shapes import load_account, load_invite
from aimessage.types import MessageId, Username

__all__ = ["audit"]

_SENTENCES = 1_000
_RECORD_BYTES = {b"b": 24, b"c": 32, b"g": 8, b"t": 8, b"s": 16}
"""The least length of the values that are laid out by hand."""


@dataclass(slots=True)
class _Mailbox:
    """What was counted of one mailbox, and its record, which should say the same."""

    record: bytes = b""
    entries: int = 0
    sealed_bytes: int = 0
    last: int = 0
    expiring: int = 0
    at_hand: int = 0
    attempts: int = 0
    expiries: int = 0


@dataclass(slots=True)
class _Stock:
    """One stock of one-time pairs: the size that its ends give, and its rows."""

    size: int = 0
    pairs: int = 0
    digests: int = 0


def audit(engine: Engine) -> Findings:
    """Return what *engine* holds and everything that is wrong with it; at most a thousand sentences of that."""
    return _Audit(engine).run()


@dataclass(slots=True)
class _Audit:
    engine: Engine
    owners: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    mailboxes: dict[str, _Mailbox] = field(default_factory=dict)
    stocks: dict[tuple[str, bytes], _Stock] = field(default_factory=dict)
    damaged: dict[str, None] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    unread: set[bytes] = field(default_factory=set)

    def run(self) -> Findings:
        """Read everything, then compare."""
        passes: dict[bytes, Callable[[str, bytes, bytes], None]] = {
            b"u": self._account, b"b": self._record, b"m": self._entry, b"d": self._attempt, b"x": self._expiry,
            b"s": self._ends, b"p": self._pair, b"q": self._digest, b"c": self._short, b"g": self._short,
            b"t": self._short, b"z": self._fact,
        }  # fmt: skip
        self._know_owners()
        for kind, visit in passes.items():
            for key, value in self._rows(kind):
                self._visit(visit, key, value)
        for owner, mailbox in self.mailboxes.items():
            if owner not in self.damaged:  # what did not read was not counted either
                self._compare(owner, mailbox)
        for (owner, _), stock in self.stocks.items():
            if owner not in self.damaged and not stock.size == stock.pairs == stock.digests:
                self._tell(owner, f"the pairs of {owner} and their index do not match")
        messages = sum(mailbox.entries for mailbox in self.mailboxes.values())
        damaged = tuple(Username(owner) for owner in sorted(self.damaged))
        return Findings(len(self.mailboxes), messages, len(self.accounts), damaged, tuple(self.sentences))

    def _tell(self, owner: str, sentence: str) -> None:
        if owner:
            self.damaged[owner] = None
        if len(self.sentences) < _SENTENCES:
            self.sentences.append(sentence)

    def _know_owners(self) -> None:
        """Learn for whom to look where a block does not read, from whichever list of names still does."""
        for kind in (b"u", b"b"):
            try:
                self.owners.update(keys.owner_of(key) for key, _ in self.engine.scan(kind, keys.after_prefix(kind)))
            except StoreDamaged:  # told when the kind has its turn
                continue

    def _rows(self, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield all pairs of one kind that read."""
        start = kind
        try:
            for key, value in self.engine.scan(kind, keys.after_prefix(kind)):
                start = key + b"\0"
                yield key, value
        except StoreDamaged as error:
            self.unread.add(kind)
            self._tell("", error.message)
            if kind not in b"xz":  # those are in no owner's order
                yield from self._rows_of_each(kind, start)

    def _rows_of_each(self, kind: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        for owner in sorted(self.owners):
            first, stop = keys.owned(kind, owner)
            try:
                if start < stop:
                    yield from self.engine.scan(max(first, start), stop)
            except StoreDamaged as error:
                self._tell(owner, error.message)

    def _visit(self, visit: Callable[[str, bytes, bytes], None], key: bytes, value: bytes) -> None:
        owner = keys.owner_of(key)
        try:
            if not owner and not key.startswith(b"z"):
                raise StoreDamaged(f"a key of kind {chr(key[0])} names nobody")
            if len(value) < _RECORD_BYTES.get(key[:1], 0):
                raise StoreDamaged(f"{keys.subject(key, key)} has a record that is too short")
            visit(owner, key, value)
        except StoreDamaged as error:
            self._tell(owner, error.message)

    def _account(self, owner: str, _: bytes, value: bytes) -> None:
        self.accounts.add(owner)
        load_account(Username(owner), value)

    def _record(self, owner: str, _: bytes, value: bytes) -> None:
        self._mailbox(owner).record = value

    def _entry(self, owner: str, key: bytes, value: bytes) -> None:
        mailbox, position = self._mailbox(owner), int.from_bytes(key[-8:], "big")
        mailbox.entries += 1
        mailbox.last = position
        entry = decode_entry(Username(owner), value)
        mailbox.sealed_bytes += len(entry.sealed)
        sender, message_id = Username(entry.sender), MessageId(entry.message_id)
        if position >= indexed_below(mailbox.record):
            mailbox.at_hand += 1
            return
        attempt = keys.attempt(Username(owner), sender, message_id, entry.attempt)
        if self.engine.get(attempt) != u64(position):
            raise StoreDamaged(f"the mailbox of {owner} holds an entry that its index of repeats does not lead to")
        if entry.expires_at:
            mailbox.expiring += 1
            if self.engine.get(keys.expiry(entry.expires_at, position, Username(owner))) is None:
                raise StoreDamaged(f"the mailbox of {owner} holds an entry that would never expire")

    def _attempt(self, owner: str, _: bytes, __: bytes) -> None:
        self._mailbox(owner).attempts += 1

    def _expiry(self, owner: str, _: bytes, __: bytes) -> None:
        self._mailbox(owner).expiries += 1

    def _ends(self, owner: str, key: bytes, value: bytes) -> None:
        self._stock(owner, key).size = int.from_bytes(value[8:16], "big") - int.from_bytes(value[:8], "big")

    def _pair(self, owner: str, key: bytes, _: bytes) -> None:
        self._stock(owner, key).pairs += 1

    def _digest(self, owner: str, key: bytes, _: bytes) -> None:
        self._stock(owner, key).digests += 1

    def _short(self, owner: str, key: bytes, value: bytes) -> None:
        """A record that only has to be there whole."""

    def _fact(self, _: str, key: bytes, value: bytes) -> None:
        if key.startswith(keys.invite(b"")):
            load_invite(key, value)

    def _mailbox(self, owner: str) -> _Mailbox:
        return self.mailboxes.setdefault(owner, _Mailbox())

    def _stock(self, owner: str, key: bytes) -> _Stock:
        at = len(owner) + 2
        return self.stocks.setdefault((owner, key[at : at + 16]), _Stock())

    def _compare(self, owner: str, mailbox: _Mailbox) -> None:
        following = int.from_bytes(mailbox.record[:8], "big")
        if mailbox.record[8:24] != u64(mailbox.entries) + u64(mailbox.sealed_bytes) or mailbox.last >= following:
            said = [int.from_bytes(mailbox.record[at : at + 8], "big") for at in (8, 16)]
            held = f"{mailbox.entries} entries of {mailbox.sealed_bytes} bytes"
            self._tell(owner, f"the mailbox of {owner} should hold {said[0]} entries of {said[1]} bytes, holds {held}")
        elif mailbox.attempts != mailbox.entries - mailbox.at_hand:
            self._tell(owner, f"the mailbox of {owner} has an index of repeats that leads to nothing")
        elif mailbox.expiries != mailbox.expiring and b"x" not in self.unread:
            self._tell(owner, f"the mailbox of {owner} has an index of expiry that leads to nothing")
