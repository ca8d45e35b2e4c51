"""PQXDH: from a bundle that lay at the relay to a session secret, with ML-KEM-1024 beside X25519.

Spec: docs/spec/handshake.md, after Signal's PQXDH; §-numbers below are of that page.
"""

from typing import Self

import msgspec

from aimessage.crypto import dh, kdf, kem, labels
from aimessage.crypto.random import Entropy
from aimessage.e2ee.identity import Account, Identity, state_identity, verify_statement
from aimessage.e2ee.prekeys import BundleSecrets, PairSecrets, bundle_reference, identity_of, pair_reference
from aimessage.octets import Reader, lp16, u8, u64
from aimessage.types import Address, SecretBytes
from aimessage.wire.bundles import SUITE, Bundle, OneTimePair

__all__ = ["Agreement", "PrekeyPart", "initiate", "respond"]

_NO_PAIR = bytes(32)
_FIXED_PREFIX = b"\xff" * 32
_SALT = bytes(32)


class PrekeyPart(msgspec.Struct, frozen=True, gc=False):
    """What every message of a session carries until its initiator has heard an answer.

    *order* is the session's place among all that these two start: both sides follow the highest that they know, so
    that no withheld old one drags anybody back, and no two starts at once leave them apart.
    """

    identity: Identity
    statement: bytes
    order: int
    ephemeral: bytes
    bundle_reference: bytes
    pair_reference: bytes | None
    ciphertext: bytes

    def encode(self) -> bytes:
        """Return the part as it travels: 1 800 bytes."""
        return b"".join(
            (
                self.identity.signing_key,
                self.identity.agreement_key,
                self.statement,
                u64(self.order),
                self.ephemeral,
                self.bundle_reference,
                self.pair_reference or _NO_PAIR,
                self.ciphertext,
            )
        )

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Return the part at the reader's place; nothing is verified. Raises MalformedOctets."""
        identity = Identity(reader.take(dh.KEY_BYTES), reader.take(dh.KEY_BYTES))
        statement, order = reader.take(64), reader.integer(8)
        ephemeral, bundle, pair = reader.take(32), reader.take(32), reader.take(32)
        ciphertext = reader.take(kem.ML_KEM_1024.ciphertext_bytes)
        return cls(identity, statement, order, ephemeral, bundle, None if pair == _NO_PAIR else pair, ciphertext)


class Agreement(msgspec.Struct, frozen=True, eq=False):
    """What both sides have when the handshake is done: the session secret, the data that binds it, and who."""

    secret: SecretBytes
    associated_data: bytes
    identity: Identity


def initiate(
    account: Account, bundle: Bundle, pair: OneTimePair | None, *, order: int, entropy: Entropy
) -> tuple[Agreement, PrekeyPart]:
    """Return the agreement with the owner of a verified *bundle*, and the part that lets them agree too (§2)."""
    ephemeral = SecretBytes(entropy(dh.KEY_BYTES))
    encapsulation_key = pair.encapsulation_key if pair else bundle.last_resort_key
    shared, ciphertext = kem.ML_KEM_1024.encapsulate(encapsulation_key)
    secrets = [
        dh.agree(account.agreement, bundle.signed_prekey),
        dh.agree(ephemeral, bundle.agreement_key),
        dh.agree(ephemeral, bundle.signed_prekey),
    ]
    if pair:
        secrets.append(dh.agree(ephemeral, pair.agreement_key))
    part = PrekeyPart(
        identity=account.identity,
        statement=state_identity(account),
        order=order,
        ephemeral=dh.public_key(ephemeral),
        bundle_reference=bundle_reference(bundle),
        pair_reference=pair_reference(pair) if pair else None,
        ciphertext=ciphertext,
    )
    them = (Address(bundle.relay_id, bundle.username), identity_of(bundle))
    bound = _associated_data((account.address, account.identity), them, part, encapsulation_key)
    return Agreement(_session_key(secrets, shared), bound, them[1]), part


def respond(
    account: Account, peer: Address, part: PrekeyPart, bundle: BundleSecrets, pair: PairSecrets | None
) -> Agreement:
    """Return the agreement that *peer* initiated with our prekeys (§3).

    Raises DecryptionFailed: the identity statement is not the peer's, or a key is not canonical.
    """
    verify_statement(part.identity, peer, part.statement)
    secrets = [
        dh.agree(bundle.signed_prekey, part.identity.agreement_key),
        dh.agree(account.agreement, part.ephemeral),
        dh.agree(bundle.signed_prekey, part.ephemeral),
    ]
    if pair:
        secrets.append(dh.agree(pair.agreement, part.ephemeral))
    seed = pair.encapsulation if pair else bundle.last_resort
    shared = kem.ML_KEM_1024.decapsulate(seed, part.ciphertext)
    us = (account.address, account.identity)
    bound = _associated_data((peer, part.identity), us, part, kem.ML_KEM_1024.public_key(seed))
    return Agreement(_session_key(secrets, shared), bound, part.identity)


def _session_key(agreements: list[bytes], shared: SecretBytes) -> SecretBytes:
    # §2.3: the fixed prefix keeps this input apart from every X25519 public key, as in the published construction.
    material = _FIXED_PREFIX + b"".join(agreements) + shared.reveal
    return SecretBytes(kdf.hkdf(_SALT, material, labels.SESSION_KEY, 32))


def _associated_data(
    initiator: tuple[Address, Identity], responder: tuple[Address, Identity], part: PrekeyPart, encapsulation_key: bytes
) -> bytes:
    # §2.4: any swap of address, identity, bundle, one-time pair or suite changes this, and nothing opens.
    fields = [labels.ASSOCIATED_DATA, u8(SUITE)]
    for address, identity in (initiator, responder):
        fields += [address.relay_id, lp16(address.username.encode()), identity.signing_key, identity.agreement_key]
    fields += [part.bundle_reference, part.pair_reference or _NO_PAIR, kdf.sha256(encapsulation_key)]
    fields += [u64(part.order)]
    return kdf.sha256(*fields)
