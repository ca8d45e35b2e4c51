"""X25519, RFC 7748, with what the protocol adds: only canonical public keys, no all-zero results."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes

__all__ = ["KEY_BYTES", "agree", "public_key", "require_canonical"]

KEY_BYTES = 32
_FIELD_PRIME = 2**255 - 19


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
    require_canonical(public)
    try:
        theirs = X25519PublicKey.from_public_bytes(public)
        return X25519PrivateKey.from_private_bytes(private.reveal).exchange(theirs)
    except ValueError:
        raise DecryptionFailed("the agreement key gives no secret") from None
