"""X25519, RFC 7748, with what the protocol adds: only canonical public keys, no all-zero results."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes

__all__ = ["KEY_BYTES", "Pair", "agree", "public_key", "require_canonical"]

KEY_BYTES = 32
_FIELD_PRIME = 2**255 - 19


class Pair:
    """A private key and its public one, loaded once for both uses: loading derives the public key each time."""

    __slots__ = ("_private", "public")

    def __init__(self, private: SecretBytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private.reveal)
        self.public = self._private.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """Return the 32-byte shared secret. Raises as the function `agree`."""
        return _exchange(self._private, public)


def public_key(private: SecretBytes) -> bytes:
    """Return the 32-byte public key of *private* (32 bytes, any value)."""
    return X25519PrivateKey.from_private_bytes(private.reveal).public_key().public_bytes_raw()


def require_canonical(public: bytes) -> None:
    """Raise DecryptionFailed unless *public* is 32 bytes that encode u < 2²⁵⁵ − 19 with the high bit clear."""
    if len(public) != KEY_BYTES or int.from_bytes(public, "little") >= _FIELD_PRIME:
        raise DecryptionFailed("the agreement key is not canonical")


def agree(private: SecretBytes, public: bytes) -> bytes:
    """Return the 32-byte shared secret.

    Raises DecryptionFailed: a non-canonical key, or one of small order (all-zero result).
    """
    return _exchange(X25519PrivateKey.from_private_bytes(private.reveal), public)


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    require_canonical(public)
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise DecryptionFailed("the agreement key gives no secret") from None
