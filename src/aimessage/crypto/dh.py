"""X25519, RFC 7748, with what the protocol adds: only canonical public keys, no all-zero results."""

from collections import OrderedDict

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes

__all__ = ["KEY_BYTES", "Pair", "agree", "keep_loaded", "public_key", "require_canonical"]

KEY_BYTES = 32
_KEPT = 32
_FIELD_PRIME = 2**255 - 19


class Pair:
    """A private key and its public one, loaded once for both uses: loading derives the public key each time."""

    __slots__ = ("_octets", "_private", "public")

    def __init__(self, private: SecretBytes) -> None:
        self._octets = private.reveal
        self._private = X25519PrivateKey.from_private_bytes(private.reveal)
        self.public = self._private.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """Return the 32-byte shared secret. Raises as the function `agree`."""
        return _exchange(self._private, public)


_loaded: OrderedDict[bytes, X25519PrivateKey] = OrderedDict()  # any thread may take from it


def keep_loaded(pair: Pair) -> None:
    """Keep *pair* as it is loaded until `agree` uses it, once; of several the last 32.

    For a key that is used a second time soon, and then never again: loading it costs more than using it.
    """
    _loaded[pair._octets] = pair._private  # noqa: SLF001 - the same module's
    while len(_loaded) > _KEPT:
        _loaded.popitem(last=False)


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
    loaded = _loaded.pop(private.reveal, None)
    return _exchange(loaded or X25519PrivateKey.from_private_bytes(private.reveal), public)


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    require_canonical(public)
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise DecryptionFailed("the agreement key gives no secret") from None
