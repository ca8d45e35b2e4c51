"""Fixed layouts: big-endian integers and `lp16` fields, read with every bound checked.

What is signed or hashed must have exactly one encoding, so those structures are laid out by hand and not by a
serializer. `docs/spec/notation.md` defines the notation.
"""

from typing import Self

from aimessage.errors import MalformedOctets

__all__ = ["Reader", "lp16", "u16", "u32", "u64", "u8"]


def u8(value: int) -> bytes:
    """Return *value* as one byte."""
    return value.to_bytes(1, "big")


def u16(value: int) -> bytes:
    """Return *value* as two bytes, big-endian."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """Return *value* as four bytes, big-endian."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """Return *value* as eight bytes, big-endian."""
    return value.to_bytes(8, "big")


def lp16(field: bytes) -> bytes:
    """Return *field* behind its length as u16."""
    return u16(len(field)) + field


class Reader:
    """Takes fields off the front of *octets*; every method raises MalformedOctets where too little is left."""

    __slots__ = ("_at", "_octets")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next *count* bytes."""
        end = self._at + count
        if end > len(self._octets):
            raise MalformedOctets("the structure ends too early")
        field = self._octets[self._at : end]
        self._at = end
        return field

    def integer(self, width: int) -> int:
        """Return the next *width* bytes as an unsigned big-endian integer."""
        return int.from_bytes(self.take(width), "big")

    def lp16(self) -> bytes:
        """Return the next length-prefixed field."""
        return self.take(self.integer(2))

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._octets) - self._at)

    @property
    def position(self) -> int:
        """How many bytes have been taken."""
        return self._at

    def end(self) -> Self:
        """Require that nothing is left."""
        if self._at != len(self._octets):
            raise MalformedOctets("the structure has bytes behind its end")
        return self
