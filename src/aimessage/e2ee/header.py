"""The header of a sealed message: authenticated as a whole, believed only once the box has opened.

Spec: docs/spec/ratchet.md draws it.
"""

import struct
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from aimessage.crypto import dh, kem
from aimessage.e2ee.handshake import PrekeyPart
from aimessage.errors import DecryptionFailed, MalformedOctets
from aimessage.octets import Reader
from aimessage.wire.bundles import SUITE

__all__ = ["SALT_BYTES", "SESSION_ID_BYTES", "Header"]

SALT_BYTES = 16
SESSION_ID_BYTES = 16
_KEM_PUBLIC, _KEM_CIPHERTEXT, _PREKEY = 1, 2, 4
_FIXED = struct.Struct(f"!BB{SESSION_ID_BYTES}s{dh.KEY_BYTES}sII{SALT_BYTES}s")


class Header(msgspec.Struct, frozen=True, gc=False):
    """One message's place in its session; *number* counts in its chain, *before* is the previous chain's length."""

    session_id: bytes
    dh: bytes
    before: int
    number: int
    salt: bytes
    kem_public: bytes = b""
    kem_ciphertext: bytes = b""
    prekey: bytes = b""

    def encode(self) -> bytes:
        """Return the header as it travels."""
        flags = (
            (_KEM_PUBLIC if self.kem_public else 0)
            | (_KEM_CIPHERTEXT if self.kem_ciphertext else 0)
            | (_PREKEY if self.prekey else 0)
        )
        fixed = _FIXED.pack(SUITE, flags, self.session_id, self.dh, self.before, self.number, self.salt)
        return fixed + self.kem_public + self.kem_ciphertext + self.prekey

    @classmethod
    def split(cls, sealed: bytes) -> tuple[Self, PrekeyPart | None, bytes]:
        """Return the header, its prekey part if it has one, and the ciphertext.

        Raises DecryptionFailed: malformed, or of another suite.
        """
        try:
            suite, flags, *fixed = _FIXED.unpack_from(sealed)
            if suite != SUITE or flags > (_KEM_PUBLIC | _KEM_CIPHERTEXT | _PREKEY):
                raise MalformedOctets("unknown suite or flags")
            if not flags:  # most messages
                return cls(*fixed), None, sealed[_FIXED.size :]
            return cls._read(sealed, flags, fixed)
        except (MalformedOctets, struct.error):
            raise DecryptionFailed("the sealed message is malformed") from None

    @classmethod
    def _read(cls, sealed: bytes, flags: int, fixed: Sequence[Any]) -> tuple[Self, PrekeyPart | None, bytes]:
        session_id, ratchet_key, before, number, salt = fixed
        reader = Reader(sealed)
        reader.take(_FIXED.size)
        kem_public = reader.take(kem.ML_KEM_768.public_bytes) if flags & _KEM_PUBLIC else b""
        kem_ciphertext = reader.take(kem.ML_KEM_768.ciphertext_bytes) if flags & _KEM_CIPHERTEXT else b""
        start = reader.position
        part = PrekeyPart.read(reader) if flags & _PREKEY else None
        prekey = sealed[start : reader.position]
        return (
            cls(session_id, ratchet_key, before, number, salt, kem_public, kem_ciphertext, prekey),
            part,
            reader.rest(),
        )
