import pytest

from aimessage.crypto import aead
from aimessage.crypto.random import system_entropy
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes

KEY, NONCE, BOUND = b"k" * 32, b"n" * aead.NONCE_BYTES, b"bound"


def test_all_failures_to_open_look_alike() -> None:
    sealed = aead.seal_once(SecretBytes(KEY), NONCE, b"text", BOUND)
    attempts = [
        (b"x" * 32, NONCE, sealed, BOUND),
        (KEY, b"x" * aead.NONCE_BYTES, sealed, BOUND),
        (KEY, NONCE, sealed, b"elsewhere"),
        (KEY, NONCE, bytes([sealed[0] ^ 1]) + sealed[1:], BOUND),
        (KEY, NONCE, sealed[:-1], BOUND),
    ]
    seen = set()
    for key, nonce, octets, bound in attempts:
        with pytest.raises(DecryptionFailed) as caught:
            aead.open_once(SecretBytes(key), nonce, octets, bound)
        seen.add((type(caught.value), str(caught.value)))
    assert len(attempts) > 0
    assert len(seen) == 1


def test_a_stored_value_moved_to_another_row_looks_like_one_under_another_key() -> None:
    ours, other = aead.StorageKey(SecretBytes(KEY)), aead.StorageKey(SecretBytes(b"x" * 32))
    sealed = ours.seal(b"value", b"inbox/1", system_entropy)
    seen = set()
    for vault, place in ((ours, b"inbox/2"), (other, b"inbox/1")):
        with pytest.raises(DecryptionFailed) as caught:
            vault.open(sealed, place)
        seen.add((type(caught.value), str(caught.value)))

    assert ours.open(sealed, b"inbox/1") == b"value"
    assert len(seen) == 1
