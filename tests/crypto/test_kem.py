import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from msgspec.structs import replace

from aimessage.crypto import kem
from aimessage.errors import CryptoUnavailable, DecryptionFailed
from aimessage.types import SecretBytes


@pytest.mark.parametrize("parameters", [kem.ML_KEM_768, kem.ML_KEM_1024], ids=lambda each: each.name)
@pytest.mark.parametrize("difference", [-1, 1, None], ids=["short", "long", "empty"])
def test_a_ciphertext_of_another_size_is_refused(parameters: kem.ParameterSet, difference: int | None) -> None:
    size = 0 if difference is None else parameters.ciphertext_bytes + difference

    with pytest.raises(DecryptionFailed):
        parameters.decapsulate(SecretBytes(bytes(kem.SEED_BYTES)), bytes(size))


def test_a_backend_without_ml_kem_is_told_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        @staticmethod
        def from_seed_bytes(_: bytes) -> None:
            raise UnsupportedAlgorithm("not in this build")

    stripped = replace(kem.ML_KEM_768, _private=Without)  # stands in for a build we do not have
    monkeypatch.setattr(kem, "ML_KEM_768", stripped)
    with pytest.raises(CryptoUnavailable) as caught:
        kem.require_support()
    assert caught.value.hint
