"""Key derivation: HKDF and HMAC with SHA-256, PBKDF2 for what a person or a registration chose."""

import hashlib
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from aimessage.types import SecretBytes

__all__ = ["PBKDF2_ROUNDS", "constant_time_equal", "hkdf", "hkdf_expand", "hmac_sha256", "pbkdf2", "sha256"]

PBKDF2_ROUNDS = 600_000


def sha256(*parts: bytes) -> bytes:
    """Return SHA-256 over the concatenation of *parts* (32 bytes)."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA-256 (32 bytes), RFC 2104."""
    return hmac.digest(key, message, "sha256")


def hkdf(salt: bytes, key_material: bytes, info: bytes, length_bytes: int) -> bytes:
    """Return *length_bytes* of HKDF-SHA-256 (extract, then expand), RFC 5869."""
    return HKDF(algorithm=hashes.SHA256(), length=length_bytes, salt=salt, info=info).derive(key_material)


def hkdf_expand(key: SecretBytes, info: bytes, length_bytes: int) -> bytes:
    """Return *length_bytes* (at most 255 × 32) of HKDF-Expand over a key that is already uniform, RFC 5869 §2.3."""
    return HKDFExpand(algorithm=hashes.SHA256(), length=length_bytes, info=info).derive(key.reveal)


def pbkdf2(secret: SecretBytes, salt: bytes, *, rounds: int = PBKDF2_ROUNDS) -> SecretBytes:
    """Return 32 bytes of PBKDF2-HMAC-SHA-256, RFC 8018; about a tenth of a second at the default rounds."""
    derivation = PBKDF2HMAC(algorithm=hashes.SHA256(), length=32, salt=salt, iterations=rounds)
    return SecretBytes(derivation.derive(secret.reveal))


def constant_time_equal(left: bytes, right: bytes) -> bool:
    """Compare two byte strings without telling by the time where they differ."""
    return hmac.compare_digest(left, right)
