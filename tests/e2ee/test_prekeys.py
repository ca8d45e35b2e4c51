"""Bundles and one-time pairs: made, verified, refused."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from aimessage.crypto import signing
from aimessage.e2ee.prekeys import BundleSecrets, PairSecrets, bundle_reference, verify_bundle, verify_pair
from aimessage.errors import DecryptionFailed, MalformedOctets
from aimessage.types import Address, Username, VaultId
from aimessage.wire.bundles import Bundle
from support.agents import NOON, RELAY, Party, strangers


def resigned(party: Party, bundle: Bundle) -> Bundle:
    signature = signing.sign(party.account.signing, signing.bundle_transcript(bundle.content))
    return replace(bundle, signature=signature)


def test_a_fresh_bundle_verifies() -> None:
    alice, _ = strangers()
    assert verify_bundle(alice.bundle.encode(), alice.account.address, now=NOON) == alice.bundle


@pytest.mark.parametrize("days", [-2, 92])
def test_a_bundle_outside_its_time_is_refused(days: int) -> None:
    alice, _ = strangers()
    with pytest.raises(DecryptionFailed):
        verify_bundle(alice.bundle.encode(), alice.account.address, now=NOON + timedelta(days=days))


def test_a_day_of_clock_skew_is_forgiven() -> None:
    alice, _ = strangers()
    verify_bundle(alice.bundle.encode(), alice.account.address, now=NOON - timedelta(hours=23))


def test_a_bundle_older_than_one_seen_before_is_a_rollback() -> None:
    alice, _ = strangers()
    with pytest.raises(DecryptionFailed):
        verify_bundle(alice.bundle.encode(), alice.account.address, now=NOON, least_epoch=2)


def test_another_address_refuses_the_bundle() -> None:
    alice, bobby = strangers()
    with pytest.raises(DecryptionFailed):
        verify_bundle(alice.bundle.encode(), bobby.account.address, now=NOON)
    with pytest.raises(DecryptionFailed):
        verify_bundle(alice.bundle.encode(), Address(RELAY, Username("alicia")), now=NOON)


def test_any_flipped_bit_is_refused() -> None:
    alice, _ = strangers()
    octets = alice.bundle.encode()
    for bit in range(0, len(octets) * 8, 37):
        flipped = bytearray(octets)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptionFailed):
            verify_bundle(bytes(flipped), alice.account.address, now=NOON)


def test_a_signed_but_non_canonical_prekey_is_refused() -> None:
    alice, _ = strangers()
    crooked = resigned(alice, replace(alice.bundle, signed_prekey=b"\xff" * 32))
    with pytest.raises(DecryptionFailed):
        verify_bundle(crooked.encode(), alice.account.address, now=NOON)


def test_a_pair_belongs_to_its_signer_and_its_vault() -> None:
    alice, bobby = strangers()
    verify_pair(alice.pairs[0].encode(), alice.bundle)
    other_vault = replace(alice.bundle, vault_id=VaultId(bytes(16)))
    for octets, bundle in (
        (bobby.pairs[0].encode(), alice.bundle),
        (alice.pairs[0].encode(), other_vault),
        (alice.pairs[0].encode()[:-1], alice.bundle),
    ):
        with pytest.raises(DecryptionFailed):
            verify_pair(octets, bundle)


def test_secrets_survive_the_vault() -> None:
    alice, _ = strangers()
    bundle = alice.bundle_secrets()
    loaded = BundleSecrets.load(bundle.dump())
    assert (loaded.reference, loaded.not_after) == (bundle_reference(alice.bundle), alice.bundle.not_after)
    assert loaded.signed_prekey.reveal == bundle.signed_prekey.reveal
    pair = next(iter(alice.pair_secrets.values()))
    assert PairSecrets.load(pair.dump()).encapsulation.reveal == pair.encapsulation.reveal
    for load in (BundleSecrets.load, PairSecrets.load):
        with pytest.raises(MalformedOctets):
            load(b"short")


def test_a_bundle_with_an_impossible_epoch_is_refused() -> None:
    alice = Party("alice", 1)
    alice.publish(epoch=1 << 45)
    with pytest.raises(DecryptionFailed):
        verify_bundle(alice.bundle.encode(), alice.account.address, now=NOON)
