import pytest

from aimessage.crypto import dh
from aimessage.crypto.dh import agree
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes


@pytest.mark.parametrize("number", [0, 1, 2**255 - 19, 2**255 - 18, 2**255 - 1, 2**255 + 9])
def test_small_order_and_non_canonical_keys_are_refused(number: int) -> None:
    with pytest.raises(DecryptionFailed):
        agree(SecretBytes(b"\x01" * 32), number.to_bytes(32, "little"))


def test_a_secret_does_not_print() -> None:
    assert "hush" not in f"{SecretBytes(b'hush')!r}{SecretBytes(b'hush')}"


def test_a_key_that_is_kept_loaded_agrees_once_as_it_would_otherwise() -> None:
    peer = dh.Pair(SecretBytes(b"\x03" * 32))
    for number in range(100):
        dh.keep_loaded(dh.Pair(SecretBytes(bytes([number]) * 32)))
        assert len(dh._loaded) <= 32
    private = SecretBytes(b"\x05" * 32)
    pair = dh.Pair(private)
    dh.keep_loaded(pair)
    assert private.reveal in dh._loaded

    assert agree(private, peer.public) == pair.agree(peer.public) == peer.agree(pair.public)
    assert private.reveal not in dh._loaded
    assert agree(private, peer.public) == pair.agree(peer.public)
    with pytest.raises(DecryptionFailed):
        agree(private, bytes(32))
