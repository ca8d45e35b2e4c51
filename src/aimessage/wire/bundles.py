"""The public shape of prekey bundles and one-time pairs: laid out by hand, because they are signed and hashed.

Only shape here: signatures are checked with `crypto.signing` over `content`, by the relay for its directory and by
every agent for itself. `docs/spec/identity.md` draws both layouts.
"""

from typing import Self

import msgspec

from aimessage.errors import MalformedOctets
from aimessage.octets import Reader, lp16, u8, u64
from aimessage.types import RelayId, Username, VaultId

__all__ = ["Bundle", "OneTimePair", "SUITE"]

SUITE = 0x01
"""X25519 + ML-KEM-1024 set-up, X25519 + ML-KEM-768 ratchet, AES-256-GCM, Ed25519. 0x02 is reserved."""

_SIGNATURE_BYTES = 64
_KEY_BYTES = 32
_KEM_1024_BYTES = 1568


class Bundle(msgspec.Struct, frozen=True):
    """What a peer needs to start a session with an agent that may be asleep; times in seconds since 1970."""

    relay_id: RelayId
    username: Username
    signing_key: bytes
    agreement_key: bytes
    identity_signature: bytes
    vault_id: VaultId
    epoch: int
    not_before: int
    not_after: int
    signed_prekey: bytes
    last_resort_key: bytes
    signature: bytes = b""

    @property
    def content(self) -> bytes:
        """Every byte before the signature: what is signed."""
        return b"".join(
            (
                u8(SUITE),
                self.relay_id,
                lp16(self.username.encode()),
                self.signing_key,
                self.agreement_key,
                self.identity_signature,
                self.vault_id,
                u64(self.epoch),
                u64(self.not_before),
                u64(self.not_after),
                self.signed_prekey,
                self.last_resort_key,
            )
        )

    def encode(self) -> bytes:
        """Return the bundle as it travels."""
        return self.content + self.signature

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Return the bundle that *octets* encode; nothing is verified.

        Raises MalformedOctets: wrong suite, lengths, or a name that is not ASCII.
        """
        reader = Reader(octets)
        _require_suite(reader)
        bundle = cls(
            relay_id=RelayId(reader.take(16)),
            username=_username(reader),
            signing_key=reader.take(_KEY_BYTES),
            agreement_key=reader.take(_KEY_BYTES),
            identity_signature=reader.take(_SIGNATURE_BYTES),
            vault_id=VaultId(reader.take(16)),
            epoch=reader.integer(8),
            not_before=reader.integer(8),
            not_after=reader.integer(8),
            signed_prekey=reader.take(_KEY_BYTES),
            last_resort_key=reader.take(_KEM_1024_BYTES),
            signature=reader.take(_SIGNATURE_BYTES),
        )
        reader.end()
        return bundle


class OneTimePair(msgspec.Struct, frozen=True):
    """An X25519 and an ML-KEM-1024 prekey that one session may use, once."""

    vault_id: VaultId
    agreement_key: bytes
    encapsulation_key: bytes
    signature: bytes = b""

    @property
    def content(self) -> bytes:
        """Every byte before the signature: what is signed."""
        return u8(SUITE) + self.vault_id + self.agreement_key + self.encapsulation_key

    def encode(self) -> bytes:
        """Return the pair as it travels."""
        return self.content + self.signature

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Return the pair that *octets* encode; nothing is verified.

        Raises MalformedOctets: wrong suite or length.
        """
        reader = Reader(octets)
        _require_suite(reader)
        pair = cls(
            vault_id=VaultId(reader.take(16)),
            agreement_key=reader.take(_KEY_BYTES),
            encapsulation_key=reader.take(_KEM_1024_BYTES),
            signature=reader.take(_SIGNATURE_BYTES),
        )
        reader.end()
        return pair


def _require_suite(reader: Reader) -> None:
    if reader.integer(1) != SUITE:
        raise MalformedOctets("the structure is of an unknown suite")


def _username(reader: Reader) -> Username:
    try:
        return Username(reader.lp16().decode("ascii"))
    except UnicodeDecodeError:
        raise MalformedOctets("the structure's name is not ASCII") from None
