"""ML-KEM, FIPS 203: 1024 for session set-up, 768 for the ratchet. Private keys are 64-byte seeds (d ‖ z).

The library draws the randomness of an encapsulation itself: this is the one place where entropy is no argument.
"""

import msgspec

from aimessage.errors import CryptoUnavailable, DecryptionFailed
from aimessage.types import SecretBytes

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import mlkem
except ImportError:  # an older cryptography: say so at once, not at the first message
    raise CryptoUnavailable("the installed cryptography package has no ML-KEM") from None

__all__ = ["ML_KEM_768", "ML_KEM_1024", "SEED_BYTES", "ParameterSet", "require_support"]

SEED_BYTES = 64


class ParameterSet(msgspec.Struct, frozen=True):
    """One ML-KEM parameter set; sizes in bytes."""

    name: str
    public_bytes: int
    ciphertext_bytes: int
    _private: type[mlkem.MLKEM768PrivateKey] | type[mlkem.MLKEM1024PrivateKey]
    _public: type[mlkem.MLKEM768PublicKey] | type[mlkem.MLKEM1024PublicKey]

    def public_key(self, seed: SecretBytes) -> bytes:
        """Return the encapsulation key of *seed* (64 bytes)."""
        return self._private.from_seed_bytes(seed.reveal).public_key().public_bytes_raw()

    def require_valid(self, public: bytes) -> None:
        """Raise DecryptionFailed unless *public* passes FIPS 203's encapsulation-key check."""
        self._load(public)

    def encapsulate(self, public: bytes) -> tuple[SecretBytes, bytes]:
        """Return a fresh shared secret (32 bytes) and its ciphertext.

        Raises DecryptionFailed: *public* is not a valid encapsulation key.
        """
        secret, ciphertext = self._load(public).encapsulate()
        return SecretBytes(secret), ciphertext

    def decapsulate(self, seed: SecretBytes, ciphertext: bytes) -> SecretBytes:
        """Return the shared secret; a wrong ciphertext of the right size gives a wrong secret (implicit rejection).

        Raises DecryptionFailed: the ciphertext has the wrong size.
        """
        try:
            return SecretBytes(self._private.from_seed_bytes(seed.reveal).decapsulate(ciphertext))
        except ValueError:
            raise DecryptionFailed("the encapsulated key has the wrong size") from None

    def _load(self, public: bytes) -> mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey:
        try:
            return self._public.from_public_bytes(public)
        except ValueError:
            raise DecryptionFailed("the encapsulation key is not valid") from None


ML_KEM_768 = ParameterSet("ML-KEM-768", 1184, 1088, mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey)
ML_KEM_1024 = ParameterSet("ML-KEM-1024", 1568, 1568, mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey)


def require_support() -> None:
    """Raise CryptoUnavailable where the installed `cryptography` was built without ML-KEM."""
    try:
        ML_KEM_768.public_key(SecretBytes(bytes(SEED_BYTES)))
    except UnsupportedAlgorithm:
        raise CryptoUnavailable("the installed cryptography package was built without ML-KEM") from None
