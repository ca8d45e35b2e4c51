"""What people and other programs compare: fingerprints, safety numbers, self-certifying addresses."""

from base64 import b32encode

from aimessage.crypto import kdf, labels
from aimessage.e2ee.identity import Identity
from aimessage.errors import BadValue, PeerIdentityChanged
from aimessage.types import Address, Username, parse_username

__all__ = [
    "fingerprint",
    "numeric_fingerprint",
    "parse_recipient",
    "require_match",
    "safety_number",
    "self_certifying",
]

_ITERATIONS = 5200
_SHORTEST_PREFIX = 26  # base32 characters: 130 bits
_BASE32 = frozenset("abcdefghijklmnopqrstuvwxyz234567")


def fingerprint(identity: Identity) -> str:
    """Return 16 hexadecimal digits for display next to a name; too short to trust alone."""
    return _digest(identity).hex()[:16]


def self_certifying(username: Username, identity: Identity) -> str:
    """Return `name~…` with the whole 52-character fingerprint: an address that pins without trust."""
    return f"{username}~{_certificate(identity)}"


def parse_recipient(raw: str) -> tuple[Username, str | None]:
    """Return the username and the fingerprint prefix of a self-certifying address, or None for a plain name.

    Raises BadValue: a prefix under 26 characters (130 bits) or outside base32; UsernameMalformed.
    """
    name, tilde, prefix = raw.partition("~")
    username = parse_username(name)
    if not tilde:
        return username, None
    prefix = prefix.lower()
    if not _SHORTEST_PREFIX <= len(prefix) <= 52 or not _BASE32.issuperset(prefix):
        raise BadValue(
            "the fingerprint in this address is malformed or too short",
            hint="use at least 26 characters behind ~, as printed by: aimessage whoami",
        )
    return username, prefix


def require_match(prefix: str, identity: Identity) -> None:
    """Return nothing if *prefix* of a self-certifying address names *identity*.

    Raises PeerIdentityChanged: it names another.
    """
    if not _certificate(identity).startswith(prefix):  # both are public: how long it takes tells nothing
        raise PeerIdentityChanged("the relay's key for this name is not the one in the address; nothing was sent")


def safety_number(ours: tuple[Address, Identity], theirs: tuple[Address, Identity]) -> str:
    """Return the 60 digits that both sides see alike, whoever asks. Source: Signal's numeric fingerprint, version 0."""
    halves = sorted(numeric_fingerprint(_stable(address), _key(identity)) for address, identity in (ours, theirs))
    return "".join(halves)


def numeric_fingerprint(stable_identifier: bytes, key: bytes) -> str:
    """Return 30 digits: 5 200 rounds of SHA-512 over version 0, *key* and *stable_identifier*."""
    import hashlib  # loads another OpenSSL, for what only people compare

    digest = bytes(2) + key + stable_identifier
    for _ in range(_ITERATIONS):
        digest = hashlib.sha512(digest + key).digest()
    chunks = (digest[at : at + 5] for at in range(0, 30, 5))
    return "".join(f"{int.from_bytes(chunk, 'big') % 100_000:05d}" for chunk in chunks)


def _stable(address: Address) -> bytes:
    return address.relay_id + address.username.encode()


def _key(identity: Identity) -> bytes:
    return identity.signing_key + identity.agreement_key


def _digest(identity: Identity) -> bytes:
    return kdf.sha256(labels.ADDRESS_FINGERPRINT, _key(identity))


def _certificate(identity: Identity) -> str:
    return b32encode(_digest(identity)).decode().rstrip("=").lower()
