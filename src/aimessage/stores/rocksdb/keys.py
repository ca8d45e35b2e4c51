"""The key layout, schema 2: a letter for the kind, then the owner, a zero byte (never in a username), then the rest.

    m owner 0 position(8)                  entry          b owner                       mailbox totals
    d owner 0 sender 0 id(16) attempt(4)   position(8)    x expiry(8) position(8) owner  (empty)
    u username                             account        c owner                       newest subscription
    g owner 0 vault(16)                    generation(8)  t owner                       version(8), sealed state
    s owner 0 vault(16)                    stock's ends   p owner 0 vault(16) number(8) pair
    q owner 0 vault(16) sha256(pair)       number(8)      z name                        the store's own facts
    zsuccessor                             the address of the store that has taken over, if one has
    zstanding username                     the operator's word about an account that is not in good standing
    zinvite sha256(code)                   an invitation

Entries from the position on that their mailbox's totals name have no d and no x.

Integers are big-endian, so that the order of keys is the order of positions and of times.
"""

import hashlib
import re

from aimessage.octets import u32, u64
from aimessage.types import MessageId, Position, Username, VaultId

__all__ = [
    "MAIL", "MAILBOXES", "ENTRIES", "RELAY_ID", "SCHEMA", "SUCCESSOR", "after_prefix", "attempt", "entries", "entry",
    "entry_parts", "expiry", "expiry_bound", "expiry_parts", "generation", "generations", "invite", "mailbox",
    "mailbox_owner", "owned", "owner_of", "pair", "pair_digest", "pairs", "standing", "state", "stock",
    "stocks", "subject", "subscription", "user", "username",
]  # fmt: skip

SCHEMA = b"zschema"
SUCCESSOR = b"zsuccessor"
RELAY_ID = b"zrelay"
ENTRIES = b"m"
MAILBOXES = b"b"

MAIL = b"mdxb"
"""The kinds of keys of which nothing is shown before its commit, wherever they stand: `Account.committed_below`."""

_SUBJECTS = dict.fromkeys(MAIL, "mailbox") | dict.fromkeys(b"cg", "subscriptions") | dict.fromkeys(b"spq", "pairs")
_SUBJECTS |= {ord("u"): "account", ord("t"): "sealed state"}
_NAME = re.compile(rb"[a-z0-9_-]*")


def after_prefix(prefix: bytes) -> bytes:
    """Return the first key above all that begin with *prefix*, whose last byte is below 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def entry(owner: Username, position: int) -> bytes:
    """Return the key of one entry."""
    return entries(owner) + u64(position)


def entries(owner: Username) -> bytes:
    """Return the prefix of all entries of *owner*; a position follows."""
    return b"m" + owner.encode() + b"\0"


def mailbox(owner: Username) -> bytes:
    """Return the key of a mailbox's totals."""
    return b"b" + owner.encode()


def mailbox_owner(key: bytes) -> Username:
    """Return whose totals are under *key*."""
    return Username(key[1:].decode())


def entry_parts(key: bytes) -> tuple[Username, Position]:
    """Return the owner and the position that an entry's key names."""
    return Username(key[1:-9].decode()), Position(int.from_bytes(key[-8:], "big"))


def attempt(owner: Username, sender: Username, message_id: MessageId, number: int) -> bytes:
    """Return the key that finds an undeleted entry by what makes it a duplicate."""
    return b"d" + owner.encode() + b"\0" + sender.encode() + b"\0" + message_id + u32(number)


def expiry(expires_at: int, position: int, owner: Username) -> bytes:
    """Return the key by which an entry is found when it expires."""
    return b"x" + u64(expires_at) + u64(position) + owner.encode()


def expiry_bound(moment: int) -> bytes:
    """Return the first expiry key above those that expire at *moment*; `expiry_bound(0)` is where they start."""
    return b"x" + u64(moment + 1)


def expiry_parts(key: bytes) -> tuple[Username, Position]:
    """Return the owner and the position of the entry that an expiry key names."""
    return Username(key[17:].decode()), Position(int.from_bytes(key[9:17], "big"))


def user(name: str) -> bytes:
    """Return the key of an account."""
    return b"u" + name.encode()


def username(key: bytes) -> Username:
    """Return the name of the account under *key*."""
    return Username(key[1:].decode())


def subscription(owner: Username) -> bytes:
    """Return the key of a mailbox's newest subscription."""
    return b"c" + owner.encode()


def generation(owner: Username, vault_id: VaultId) -> bytes:
    """Return the key of the highest generation that a vault subscribed with."""
    return generations(owner) + vault_id


def generations(owner: Username) -> bytes:
    """Return the prefix of the highest generations of all vaults of *owner*; a vault id follows."""
    return b"g" + owner.encode() + b"\0"


def standing(owner: str) -> bytes:
    """Return the key of what the operator has decided about an account."""
    return b"zstanding" + owner.encode()


def invite(digest: bytes) -> bytes:
    """Return the key of an invitation."""
    return b"zinvite" + digest


def state(owner: Username) -> bytes:
    """Return the key of an account's sealed state."""
    return b"t" + owner.encode()


def stocks(owner: Username) -> bytes:
    """Return the prefix of the ends of all stocks of *owner*; a vault id follows."""
    return b"s" + owner.encode() + b"\0"


def stock(owner: Username, vault_id: VaultId) -> bytes:
    """Return the key of the two ends of a stock of pairs."""
    return stocks(owner) + vault_id


def pairs(owner: Username) -> bytes:
    """Return the prefix of all pairs of *owner*; a vault id and a number follow."""
    return b"p" + owner.encode() + b"\0"


def pair(owner: Username, vault_id: VaultId, number: int) -> bytes:
    """Return the key of one pair in a stock."""
    return pairs(owner) + vault_id + u64(number)


def pair_digest(owner: Username, vault_id: VaultId, octets: bytes) -> bytes:
    """Return the key that finds a stocked pair by its content."""
    return b"q" + owner.encode() + b"\0" + vault_id + hashlib.sha256(octets).digest()


def owner_of(key: bytes) -> str:
    """Return the owner that a key of any kind names, "" if it names none."""
    found = _NAME.match(key, 17 if key.startswith(b"x") else 1)
    return found[0].decode() if found is not None and not key.startswith(b"z") else ""


def owned(kind: bytes, owner: str) -> tuple[bytes, bytes]:
    """Return the bounds of the keys of *kind* (any but x and z) that are *owner*'s."""
    key = kind + owner.encode()
    return (key, key + b"\0") if kind in b"ubct" else (key + b"\0", key + b"\1")


def subject(start: bytes, stop: bytes) -> str | None:
    """Return whose what lies between two keys ("the mailbox of alice"), None if they are not one owner's."""
    owner = owner_of(start)
    if not owner or start[:1] != stop[:1] or owner_of(stop) != owner:
        return None
    return f"the {_SUBJECTS[start[0]]} of {owner}"
