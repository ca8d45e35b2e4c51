import pytest

from aimessage.crypto import labels, signing
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes

SEED = SecretBytes(b"s" * 32)


def test_no_label_is_a_prefix_of_another() -> None:
    values = [getattr(labels, name) for name in labels.__all__]

    assert len(values) > 0
    assert [(a, b) for a in values for b in values if a is not b and b.startswith(a)] == []


def test_a_signed_bundle_does_not_pass_for_a_pair() -> None:
    signature = signing.sign(SEED, signing.bundle_transcript(b"content"))

    signing.verify(signing.public_key(SEED), signature, signing.bundle_transcript(b"content"))
    with pytest.raises(DecryptionFailed):
        signing.verify(signing.public_key(SEED), signature, signing.pair_transcript(b"content"))
