import pytest

from aimessage.crypto import kem
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes


@pytest.mark.parametrize("parameters", [kem.ML_KEM_768, kem.ML_KEM_1024], ids=lambda each: each.name)
@pytest.mark.parametrize("difference", [-1, 1, None], ids=["short", "long", "empty"])
def test_a_ciphertext_of_another_size_is_refused(parameters: kem.ParameterSet, difference: int | None) -> None:
    size = 0 if difference is None else parameters.ciphertext_bytes + difference

    with pytest.raises(DecryptionFailed):
        parameters.decapsulate(SecretBytes(bytes(kem.SEED_BYTES)), bytes(size))
