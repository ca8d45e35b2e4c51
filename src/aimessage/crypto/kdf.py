"""Key derivation: HKDF and HMAC with SHA-256, PBKDF2 for what a person or a registration chose.

All of it is the one library's: `hashlib` and `hmac` beside it would load another OpenSSL, a tenth of a cold command.
"""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from aimessage.types import SecretBytes

__all__ = ["PBKDF2_ROUNDS", "hkdf", "hkdf_expand", "hmac_sha256", "pbkdf2", "sha1", "sha256"]

PBKDF2_ROUNDS = 600_000
_SHA256 = hashes.SHA256()


def sha256(*parts: bytes) -> bytes:
    """Return SHA-256 over the concatenation of *parts* (32 bytes)."""
    digest = hashes.Hash(_SHA256)
    for part in parts:
        digest.update(part)
    return digest.finalize()


def sha1(octets: bytes) -> bytes:
    """Return SHA-1 (20 bytes): for the handshake of RFC 6455, which protects nothing by it, and for nothing else."""
    digest = hashes.Hash(hashes.SHA1())  # noqa: S303
    digest.update(octets)
    return digest.finalize()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA-256 (32 bytes), RFC 2104: it is HKDF's first half, by RFC 5869 §2.2, and quickest as that."""
    return HKDF.extract(_SHA256, key, message)


def hkdf(salt: bytes, key_material: bytes, info: bytes, length_bytes: int) -> bytes:
    """Return *length_bytes* of HKDF-SHA-256 (extract, then expand), RFC 5869."""
    return HKDF(algorithm=_SHA256, length=length_bytes, salt=salt, info=info).derive(key_material)


def hkdf_expand(key: SecretBytes, info: bytes, length_bytes: int) -> bytes:
    """Return *length_bytes* (at most 255 × 32) of HKDF-Expand over a key that is already uniform, RFC 5869 §2.3."""
    return HKDFExpand(algorithm=_SHA256, length=length_bytes, info=info).derive(key.reveal)


def pbkdf2(secret: SecretBytes, salt: bytes, *, rounds: int = PBKDF2_ROUNDS) -> SecretBytes:
    """Return 32 bytes of PBKDF2-HMAC-SHA-256, RFC 8018; about a tenth of a second at the default rounds."""
    derivation = PBKDF2HMAC(algorithm=_SHA256, length=32, salt=salt, iterations=rounds)
    return SecretBytes(derivation.derive(secret.reveal))
