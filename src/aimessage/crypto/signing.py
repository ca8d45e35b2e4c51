"""Ed25519, RFC 8032, and the transcripts that are signed: plain bytes, so that the relay and the agents share them.

`docs/spec/identity.md` and `docs/spec/link.md` draw each transcript.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aimessage.crypto import labels
from aimessage.errors import DecryptionFailed
from aimessage.octets import lp16, u8
from aimessage.types import SecretBytes, Username

__all__ = [
    "SIGNATURE_BYTES",
    "bundle_transcript",
    "identity_transcript",
    "pair_transcript",
    "proof_transcript",
    "public_key",
    "registration_transcript",
    "sign",
    "verify",
]

SIGNATURE_BYTES = 64


def public_key(private: SecretBytes) -> bytes:
    """Return the 32-byte public key of *private* (a 32-byte seed)."""
    return Ed25519PrivateKey.from_private_bytes(private.reveal).public_key().public_bytes_raw()


def sign(private: SecretBytes, transcript: bytes) -> bytes:
    """Return the 64-byte signature over *transcript*."""
    return Ed25519PrivateKey.from_private_bytes(private.reveal).sign(transcript)


def verify(public: bytes, signature: bytes, transcript: bytes) -> None:
    """Return nothing if *signature* is good.

    Raises DecryptionFailed: the key or the signature is malformed, or it signs something else.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, transcript)
    except (InvalidSignature, ValueError):
        raise DecryptionFailed("the signature is not good") from None


def identity_transcript(suite: int, relay_id: bytes, username: Username, agreement_key: bytes) -> bytes:
    """What an identity statement signs: this name at this relay agrees keys with *agreement_key* (32 bytes)."""
    return labels.IDENTITY_STATEMENT + u8(suite) + relay_id + lp16(username.encode()) + agreement_key


def bundle_transcript(content: bytes) -> bytes:
    """What a bundle signs: every byte of it before the signature."""
    return labels.BUNDLE + content


def pair_transcript(content: bytes) -> bytes:
    """What a one-time pair signs: every byte of it before the signature."""
    return labels.ONE_TIME_PAIR + content


def proof_transcript(
    relay_id: bytes, host: str, username: Username, *, relay_nonce: bytes, client_nonce: bytes, vault_id: bytes
) -> bytes:
    """What `Prove` signs; *host* is the name that the client dialled: lower case, an A-label, no port."""
    return _link_transcript(labels.PROVE, relay_id, host, username, relay_nonce + client_nonce + vault_id)


def registration_transcript(
    relay_id: bytes, host: str, username: Username, *, relay_nonce: bytes, client_nonce: bytes, vault_id: bytes
) -> bytes:
    """What `Register` signs: as `Prove`, under its own label, so that neither passes for the other."""
    return _link_transcript(labels.REGISTER, relay_id, host, username, relay_nonce + client_nonce + vault_id)


def _link_transcript(label: bytes, relay_id: bytes, host: str, username: Username, fixed: bytes) -> bytes:
    return label + relay_id + lp16(host.encode("ascii")) + lp16(username.encode()) + fixed
