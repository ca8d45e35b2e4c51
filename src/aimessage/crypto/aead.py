"""AES-256-GCM, the only cipher: once per derived key for messages, with a random nonce for what is stored."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aimessage.crypto.random import Entropy
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes

__all__ = ["NONCE_BYTES", "StorageKey", "open_once", "seal_once"]

NONCE_BYTES = 12


def seal_once(key: SecretBytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    """Return ciphertext ‖ tag. The caller's duty: *key* (32 bytes) with this *nonce* (12) seals nothing else."""
    return AESGCM(key.reveal).encrypt(nonce, plaintext, associated_data)


def open_once(key: SecretBytes, nonce: bytes, sealed: bytes, associated_data: bytes) -> bytes:
    """Return the plaintext of `seal_once`.

    Raises DecryptionFailed: anything about key, nonce, bytes or associated data is not what was sealed.
    """
    try:
        return AESGCM(key.reveal).decrypt(nonce, sealed, associated_data)
    except InvalidTag:
        raise DecryptionFailed("the sealed box does not open") from None


class StorageKey:
    """A long-lived key for values at rest: every seal draws its own nonce, so a restored copy repeats none."""

    __slots__ = ("_cipher",)

    def __init__(self, key: SecretBytes) -> None:
        self._cipher = AESGCM(key.reveal)

    def seal(self, plaintext: bytes, associated_data: bytes, entropy: Entropy) -> bytes:
        """Return nonce ‖ ciphertext ‖ tag; *associated_data* names the place where the value is kept."""
        nonce = entropy(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, associated_data)

    def open(self, sealed: bytes, associated_data: bytes) -> bytes:
        """Return the plaintext.

        Raises DecryptionFailed: another key, another place, or damaged bytes.
        """
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated_data)
        except (InvalidTag, ValueError):
            raise DecryptionFailed("the stored value does not open") from None
