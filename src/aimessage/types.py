"""The values that every room shares: parsed once at the edge, believed inside."""

import re
from base64 import b32decode
from typing import NewType

import msgspec

from aimessage.errors import BadValue, UsernameMalformed

__all__ = [
    "Address",
    "MessageId",
    "Position",
    "RelayId",
    "SecretBytes",
    "Username",
    "VaultId",
    "message_id_text",
    "parse_message_id",
    "parse_username",
]

Username = NewType("Username", str)
MessageId = NewType("MessageId", bytes)
"""16 random bytes, chosen by the sender; its text form is 26 characters of base32."""
RelayId = NewType("RelayId", bytes)
"""16 random bytes, made once per store and shared by all relays on it."""
VaultId = NewType("VaultId", bytes)
"""16 random bytes: one copy of one identity's local state."""
Position = NewType("Position", int)
"""A place in one mailbox: opaque, ordered, not contiguous, at least 1."""

ID_BYTES = 16
_USERNAME = re.compile(r"[a-z0-9][a-z0-9_-]{2,31}")
_RESERVED = frozenset(
    {"admin", "administrator", "aimessage", "all", "anonymous", "broadcast", "default", "everyone", "help", "here"}
    | {"null", "nobody", "none", "operator", "postmaster", "relay", "root", "security", "self", "server", "support"}
    | {"system", "unknown"}
)


class SecretBytes(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Key material: not printable, not comparable by value."""

    reveal: bytes

    def __repr__(self) -> str:
        return "SecretBytes(…)"


class Address(msgspec.Struct, frozen=True, gc=False):
    """Where an agent lives: the relay's id, not its host name, and the username there."""

    relay_id: RelayId
    username: Username


def parse_username(raw: str) -> Username:
    """Return *raw* as a username, with ASCII capitals folded.

    Raises UsernameMalformed: wrong characters or length, or a reserved name.
    """
    folded = raw.lower() if raw.isascii() else raw
    if not _USERNAME.fullmatch(folded):
        raise UsernameMalformed("this is not a username")
    if folded in _RESERVED:
        raise UsernameMalformed(f"the username {folded} is reserved", hint="choose another username")
    return Username(folded)


_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"  # RFC 4648; two of them are ten bits
_PAIRS = [first + second for first in _LETTERS for second in _LETTERS]
_PADDING_BITS = 2  # 128 bits are 26 letters of five
_SHIFTS = range(120, -1, -10)


def message_id_text(message_id: MessageId) -> str:
    """Return the text form of a message id: 26 lower-case base32 characters."""
    number = int.from_bytes(message_id, "big") << _PADDING_BITS
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def parse_message_id(text: str) -> MessageId:
    """Return the message id that *text* names.

    Raises BadValue: not 26 base32 characters in canonical form.
    """
    try:
        raw = b32decode(text.upper() + "======")
    except ValueError:
        raw = b""
    if len(raw) != ID_BYTES or message_id_text(MessageId(raw)) != text.lower():
        raise BadValue("this is not a message id", hint="message ids have 26 characters, as printed by send and listen")
    return MessageId(raw)
