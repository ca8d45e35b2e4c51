"""Prekeys: one vault's signed bundle, its one-time pairs, and the secrets behind both. Spec: docs/spec/identity.md.

All secrets are random and live in the vault only: a token alone opens nothing that was sealed before it was restored.
"""

from datetime import datetime, timedelta
from typing import Self

import msgspec
from msgspec.structs import replace

from aimessage.crypto import dh, kdf, kem, labels, signing
from aimessage.crypto.random import Entropy
from aimessage.e2ee.identity import Account, Identity, state_identity, verify_statement
from aimessage.errors import DecryptionFailed, MalformedOctets
from aimessage.octets import Reader, u64
from aimessage.types import Address, SecretBytes, VaultId
from aimessage.wire.bundles import Bundle, OneTimePair

__all__ = [
    "BUNDLE_LIFE",
    "BundleSecrets",
    "CLOCK_SKEW",
    "PairSecrets",
    "bundle_reference",
    "identity_of",
    "make_bundle",
    "make_pairs",
    "pair_reference",
    "verify_bundle",
    "verify_pair",
]

BUNDLE_LIFE = timedelta(days=90)
CLOCK_SKEW = timedelta(hours=24)
_REFERENCE_BYTES = 32
_HIGHEST_EPOCH = 1 << 40  # minutes since 1970, for two million years; so that no order of a session overflows


class BundleSecrets(msgspec.Struct, frozen=True, eq=False):
    """The private half of one bundle; *not_after* in seconds since 1970."""

    reference: bytes
    signed_prekey: SecretBytes
    last_resort: SecretBytes
    not_after: int

    def dump(self) -> bytes:
        """Return the fixed layout that `load` reads."""
        return self.reference + self.signed_prekey.reveal + self.last_resort.reveal + u64(self.not_after)

    @classmethod
    def load(cls, octets: bytes) -> Self:
        """Return what `dump` wrote. Raises MalformedOctets."""
        reader = Reader(octets)
        secrets = cls(
            reader.take(_REFERENCE_BYTES),
            SecretBytes(reader.take(dh.KEY_BYTES)),
            SecretBytes(reader.take(kem.SEED_BYTES)),
            reader.integer(8),
        )
        reader.end()
        return secrets


class PairSecrets(msgspec.Struct, frozen=True, eq=False):
    """The private half of a one-time pair, erased when its session has been opened."""

    reference: bytes
    agreement: SecretBytes
    encapsulation: SecretBytes

    def dump(self) -> bytes:
        """Return the fixed layout that `load` reads."""
        return self.reference + self.agreement.reveal + self.encapsulation.reveal

    @classmethod
    def load(cls, octets: bytes) -> Self:
        """Return what `dump` wrote. Raises MalformedOctets."""
        reader = Reader(octets)
        secrets = cls(
            reader.take(_REFERENCE_BYTES),
            SecretBytes(reader.take(dh.KEY_BYTES)),
            SecretBytes(reader.take(kem.SEED_BYTES)),
        )
        reader.end()
        return secrets


def make_bundle(
    account: Account, *, vault_id: VaultId, epoch: int, now: datetime, entropy: Entropy
) -> tuple[Bundle, BundleSecrets]:
    """Return a signed bundle, valid from *now* for 90 days (verifiers allow a day of skew), and the secrets to keep."""
    signed_prekey, last_resort = SecretBytes(entropy(dh.KEY_BYTES)), SecretBytes(entropy(kem.SEED_BYTES))
    seconds = int(now.timestamp())
    unsigned = Bundle(
        relay_id=account.address.relay_id,
        username=account.address.username,
        signing_key=account.identity.signing_key,
        agreement_key=account.identity.agreement_key,
        identity_signature=state_identity(account),
        vault_id=vault_id,
        epoch=epoch,
        not_before=seconds,
        not_after=seconds + int(BUNDLE_LIFE.total_seconds()),
        signed_prekey=dh.public_key(signed_prekey),
        last_resort_key=kem.ML_KEM_1024.public_key(last_resort),
    )
    bundle = replace(unsigned, signature=signing.sign(account.signing, signing.bundle_transcript(unsigned.content)))
    secrets = BundleSecrets(bundle_reference(bundle), signed_prekey, last_resort, bundle.not_after)
    return bundle, secrets


def make_pairs(
    account: Account, *, vault_id: VaultId, count: int, entropy: Entropy
) -> list[tuple[OneTimePair, PairSecrets]]:
    """Return *count* signed one-time pairs and their secrets."""
    return [_make_pair(account, vault_id, entropy) for _ in range(count)]


def _make_pair(account: Account, vault_id: VaultId, entropy: Entropy) -> tuple[OneTimePair, PairSecrets]:
    agreement, encapsulation = SecretBytes(entropy(dh.KEY_BYTES)), SecretBytes(entropy(kem.SEED_BYTES))
    unsigned = OneTimePair(vault_id, dh.public_key(agreement), kem.ML_KEM_1024.public_key(encapsulation))
    pair = replace(unsigned, signature=signing.sign(account.signing, signing.pair_transcript(unsigned.content)))
    return pair, PairSecrets(pair_reference(pair), agreement, encapsulation)


def verify_bundle(octets: bytes, expected: Address, *, now: datetime, least_epoch: int = 0) -> Bundle:
    """Return the bundle, if the agent at *expected* signed it and it holds now.

    *least_epoch* is the highest epoch seen from this peer: an older bundle is a rollback. A day of clock skew is
    allowed on both ends.

    Raises DecryptionFailed: anything is not as it should be.
    """
    try:
        bundle = Bundle.parse(octets)
    except MalformedOctets as error:
        raise DecryptionFailed(f"the peer's bundle is malformed: {error.message}") from None
    if Address(bundle.relay_id, bundle.username) != expected:
        raise DecryptionFailed("the bundle is for another address")
    verify_statement(identity_of(bundle), expected, bundle.identity_signature)
    signing.verify(bundle.signing_key, bundle.signature, signing.bundle_transcript(bundle.content))
    dh.require_canonical(bundle.signed_prekey)
    kem.ML_KEM_1024.require_valid(bundle.last_resort_key)
    seconds, skew = int(now.timestamp()), int(CLOCK_SKEW.total_seconds())
    if not bundle.not_before - skew <= seconds <= bundle.not_after + skew:
        raise DecryptionFailed("the peer's bundle is not valid at this time; check the clock here and there")
    if bundle.epoch >= _HIGHEST_EPOCH:
        raise DecryptionFailed("the peer's bundle has an impossible epoch")
    if bundle.epoch < least_epoch:
        raise DecryptionFailed("the relay served an older bundle than before")
    return bundle


def verify_pair(octets: bytes, bundle: Bundle) -> OneTimePair:
    """Return the one-time pair, if the owner of *bundle* signed it for the same vault.

    Raises DecryptionFailed: it is malformed, another's, or of another vault.
    """
    try:
        pair = OneTimePair.parse(octets)
    except MalformedOctets as error:
        raise DecryptionFailed(f"the peer's one-time pair is malformed: {error.message}") from None
    if pair.vault_id != bundle.vault_id:
        raise DecryptionFailed("the one-time pair is of another vault")
    signing.verify(bundle.signing_key, pair.signature, signing.pair_transcript(pair.content))
    dh.require_canonical(pair.agreement_key)
    kem.ML_KEM_1024.require_valid(pair.encapsulation_key)
    return pair


def identity_of(bundle: Bundle) -> Identity:
    """Return the identity that the bundle states."""
    return Identity(bundle.signing_key, bundle.agreement_key)


def bundle_reference(bundle: Bundle) -> bytes:
    """Return the 32-byte hash by which a prekey header names the bundle that it used."""
    return kdf.sha256(labels.BUNDLE_REFERENCE, bundle.encode())


def pair_reference(pair: OneTimePair) -> bytes:
    """Return the 32-byte hash by which a prekey header names the one-time pair that it used."""
    return kdf.sha256(labels.PAIR_REFERENCE, pair.encode())
