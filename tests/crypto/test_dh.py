import pytest

from aimessage.crypto.dh import agree
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes


@pytest.mark.parametrize("number", [0, 1, 2**255 - 19, 2**255 - 18, 2**255 - 1, 2**255 + 9])
def test_small_order_and_non_canonical_keys_are_refused(number: int) -> None:
    with pytest.raises(DecryptionFailed):
        agree(SecretBytes(b"\x01" * 32), number.to_bytes(32, "little"))


def test_a_secret_does_not_print() -> None:
    assert "hush" not in f"{SecretBytes(b'hush')!r}{SecretBytes(b'hush')}"
