"""One secret is the whole identity: the token, and every key that is derived from it. Spec: docs/spec/identity.md."""

from base64 import b32decode, b32encode

import msgspec

from aimessage.crypto import aead, dh, kdf, labels, signing
from aimessage.crypto.random import Entropy
from aimessage.errors import DecryptionFailed, PassphraseWrong, TokenMalformed
from aimessage.octets import lp16
from aimessage.types import Address, SecretBytes, Username
from aimessage.wire.bundles import SUITE

__all__ = [
    "Account",
    "Identity",
    "Token",
    "lock_token",
    "mint_token",
    "open_account",
    "parse_token",
    "prove",
    "prove_registration",
    "state_identity",
    "unlock_token",
    "verify_statement",
]

_PREFIX = "aim1-"
_TOKEN_BYTES = 32
_CHECKSUM_BYTES = 3
_SALT_BYTES = 16


class Token(msgspec.Struct, frozen=True, eq=False):
    """The secret (32 bytes) that is an agent: whoever holds it is that agent."""

    secret: SecretBytes

    def text(self) -> str:
        """Return `aim1-…`: 56 base32 characters over the secret and a 3-byte checksum."""
        return _PREFIX + b32encode(self.secret.reveal + _checksum(self.secret.reveal)).decode().lower()


class Identity(msgspec.Struct, frozen=True, gc=False):
    """An agent's public identity: the Ed25519 key that signs and the X25519 key that agrees, 32 bytes each."""

    signing_key: bytes
    agreement_key: bytes


class Account(msgspec.Struct, frozen=True, eq=False):
    """Our own keys at one address, all derived from the token."""

    address: Address
    identity: Identity
    signing: SecretBytes
    agreement: SecretBytes
    vault_key: SecretBytes
    state_key: SecretBytes
    idempotency_key: SecretBytes


def mint_token(username: Username, entropy: Entropy) -> Token:
    """Make a new identity: PBKDF2 over a secret and a salt that are both forgotten. Takes about 0.1 s, once."""
    registration_secret = SecretBytes(entropy(_TOKEN_BYTES))
    salt = labels.TOKEN + lp16(username.encode()) + entropy(_SALT_BYTES)
    return Token(kdf.pbkdf2(registration_secret, salt))


def parse_token(text: str) -> Token:
    """Return the token that *text* is, surrounding white space aside.

    Raises TokenMalformed: wrong prefix, alphabet, length or checksum; the message never repeats the text.
    """
    trimmed = text.strip().lower()
    try:
        octets = b32decode(trimmed.removeprefix(_PREFIX).upper())
    except ValueError:
        octets = b""
    secret, checksum = octets[:_TOKEN_BYTES], octets[_TOKEN_BYTES:]
    if not trimmed.startswith(_PREFIX) or checksum != _checksum(secret):  # whoever gives the one gives the other
        raise TokenMalformed("this is not a token, or it has a typing error")
    return Token(SecretBytes(secret))


def lock_token(token: Token, passphrase: SecretBytes, entropy: Entropy) -> bytes:
    """Return the token sealed under a passphrase: salt ‖ box. The identity does not depend on the passphrase."""
    salt = entropy(_SALT_BYTES)
    key = kdf.pbkdf2(passphrase, labels.PASSPHRASE + salt)
    return salt + aead.StorageKey(key).seal(token.secret.reveal, labels.PASSPHRASE, entropy)


def unlock_token(octets: bytes, passphrase: SecretBytes) -> Token:
    """Return the token of `lock_token`.

    Raises PassphraseWrong: another passphrase, or damaged bytes.
    """
    key = kdf.pbkdf2(passphrase, labels.PASSPHRASE + octets[:_SALT_BYTES])
    try:
        return Token(SecretBytes(aead.StorageKey(key).open(octets[_SALT_BYTES:], labels.PASSPHRASE)))
    except DecryptionFailed:
        raise PassphraseWrong("the passphrase does not open the token") from None


def open_account(token: Token, address: Address) -> Account:
    """Return all keys of *token* at *address*; microseconds, no PBKDF2."""

    def derived(label: bytes) -> SecretBytes:
        return SecretBytes(kdf.hkdf_expand(token.secret, label, 32))

    sign_key, agree_key = derived(labels.IDENTITY_SIGNING), derived(labels.IDENTITY_AGREEMENT)
    return Account(
        address=address,
        identity=Identity(signing.public_key(sign_key), dh.public_key(agree_key)),
        signing=sign_key,
        agreement=agree_key,
        vault_key=derived(labels.VAULT),
        state_key=derived(labels.STATE_BLOB),
        idempotency_key=derived(labels.IDEMPOTENCY),
    )


def state_identity(account: Account) -> bytes:
    """Return the signature (64 bytes) that binds our agreement key to our name at our relay."""
    transcript = signing.identity_transcript(
        SUITE, account.address.relay_id, account.address.username, account.identity.agreement_key
    )
    return signing.sign(account.signing, transcript)


def verify_statement(identity: Identity, address: Address, signature: bytes) -> None:
    """Return nothing if *signature* states *identity* for *address*.

    Raises DecryptionFailed: it does not, or the agreement key is not canonical.
    """
    dh.require_canonical(identity.agreement_key)
    transcript = signing.identity_transcript(SUITE, address.relay_id, address.username, identity.agreement_key)
    signing.verify(identity.signing_key, signature, transcript)


def prove(account: Account, host: str, *, relay_nonce: bytes, client_nonce: bytes, vault_id: bytes) -> bytes:
    """Return the signature of `Prove`; *host* as dialled: lower case, an A-label, no port."""
    address = account.address
    transcript = signing.proof_transcript(
        address.relay_id, host, address.username, relay_nonce=relay_nonce, client_nonce=client_nonce, vault_id=vault_id
    )
    return signing.sign(account.signing, transcript)


def prove_registration(
    account: Account, host: str, *, relay_nonce: bytes, client_nonce: bytes, vault_id: bytes
) -> bytes:
    """Return the signature of `Register`; *host* as for `prove`."""
    address = account.address
    transcript = signing.registration_transcript(
        address.relay_id, host, address.username, relay_nonce=relay_nonce, client_nonce=client_nonce, vault_id=vault_id
    )
    return signing.sign(account.signing, transcript)


def _checksum(secret: bytes) -> bytes:
    return kdf.sha256(labels.TOKEN_CHECKSUM, secret)[:_CHECKSUM_BYTES]
