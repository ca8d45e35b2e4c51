"""The wrappers against the vectors of the `cryptography-vectors` package, and against what they must refuse."""

from collections.abc import Iterator
from itertools import islice
from random import Random

import cryptography_vectors
import pytest

from aimessage.crypto import aead, dh, kdf, kem, signing
from aimessage.crypto.random import system_entropy
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes, Username


def lines_of(name: str) -> Iterator[str]:
    with cryptography_vectors.open_vector_file(name, "r") as file:
        for line in file:
            yield line.strip()


def vectors_of(name: str) -> Iterator[dict[str, bytes]]:
    """Yield the vectors of a file of `name = hexadecimal` lines; each begins with its count."""
    vector: dict[str, bytes] = {}
    for line in lines_of(name):
        key, _, value = (part.strip() for part in line.partition("="))
        if key.lower() == "count":
            if vector:
                yield vector
            vector = {}
        elif value and key not in ("Hash", "L"):
            vector[key] = bytes.fromhex(value)
    yield vector


def test_x25519_agrees_with_rfc_7748() -> None:
    vector = next(vectors_of("asymmetric/X25519/rfc7748.txt"))

    assert dh.agree(SecretBytes(vector["INPUT_SCALAR"]), vector["INPUT_U"]) == vector["OUTPUT_U"]


@pytest.mark.parametrize(
    "public",
    [bytes(31), bytes(32), (1).to_bytes(32, "little"), (2**255 - 19).to_bytes(32, "little"), b"\xff" * 32],
    ids=["short", "zero", "small order", "not reduced", "high bit"],
)
def test_a_bad_agreement_key_is_refused(public: bytes) -> None:
    with pytest.raises(DecryptionFailed):
        dh.agree(SecretBytes(b"\x08" * 32), public)


def test_hkdf_agrees_with_rfc_5869() -> None:
    for vector in vectors_of("KDF/rfc-5869-HKDF-SHA256.txt"):
        info, expected = vector.get("info", b""), vector["OKM"]
        assert kdf.hkdf(vector.get("salt", b""), vector["IKM"], info, len(expected)) == expected
        assert kdf.hkdf_expand(SecretBytes(vector["PRK"]), info, len(expected)) == expected


def test_pbkdf2_agrees_with_its_definition_for_one_round() -> None:
    assert kdf.pbkdf2(SecretBytes(b"secret"), b"salt", rounds=1).reveal == kdf.hmac_sha256(b"secret", b"salt\0\0\0\1")


def test_ed25519_agrees_with_the_reference_signatures() -> None:
    for line in islice(lines_of("asymmetric/Ed25519/sign.input"), 64):
        private, public, message, signed = (bytes.fromhex(field) for field in line.split(":")[:4])
        signature = signed[: signing.SIGNATURE_BYTES]
        assert signing.public_key(SecretBytes(private[:32])) == public
        assert signing.sign(SecretBytes(private[:32]), message) == signature
        signing.verify(public, signature, message)
        with pytest.raises(DecryptionFailed):
            signing.verify(public, signature, message + b"\0")


@pytest.mark.parametrize("public", [bytes(31), b"\xff" * 32])
def test_a_malformed_signing_key_verifies_nothing(public: bytes) -> None:
    with pytest.raises(DecryptionFailed):
        signing.verify(public, bytes(64), b"")


def test_prove_and_register_never_sign_the_same_bytes() -> None:
    fields = {"relay_nonce": b"n" * 32, "client_nonce": b"c" * 16, "vault_id": b"v" * 16}
    prove = signing.proof_transcript(b"r" * 16, "localhost", Username("alice"), **fields)

    assert prove != signing.registration_transcript(b"r" * 16, "localhost", Username("alice"), **fields)


@pytest.mark.parametrize("parameters", [kem.ML_KEM_768, kem.ML_KEM_1024], ids=lambda each: each.name)
def test_ml_kem_agrees_with_the_known_answers(parameters: kem.ParameterSet) -> None:
    name = f"asymmetric/MLKEM/kat_{parameters.name.replace('ML-KEM-', 'MLKEM_')}.rsp"
    for vector in islice(vectors_of(name), 20):
        seed = SecretBytes(vector["d"] + vector["z"])
        assert parameters.public_key(seed) == vector["pk"]
        assert parameters.decapsulate(seed, vector["ct"]).reveal == vector["ss"]
        assert parameters.decapsulate(seed, vector["ct_n"]).reveal == vector["ss_n"]


@pytest.mark.parametrize("parameters", [kem.ML_KEM_768, kem.ML_KEM_1024], ids=lambda each: each.name)
def test_ml_kem_agrees_with_itself_and_refuses_what_is_malformed(parameters: kem.ParameterSet) -> None:
    seed = SecretBytes(system_entropy(kem.SEED_BYTES))
    public = parameters.public_key(seed)
    secret, ciphertext = parameters.encapsulate(public)

    assert (len(public), len(ciphertext)) == (parameters.public_bytes, parameters.ciphertext_bytes)
    assert parameters.decapsulate(seed, ciphertext).reveal == secret.reveal
    parameters.require_valid(public)
    for bad in (public[:-1], b"\xff" * len(public)):
        with pytest.raises(DecryptionFailed):
            parameters.require_valid(bad)
    with pytest.raises(DecryptionFailed):
        parameters.decapsulate(seed, ciphertext[:-1])


def test_this_machine_has_ml_kem() -> None:
    kem.require_support()


def test_any_flipped_bit_keeps_a_box_closed() -> None:
    key, nonce = SecretBytes(b"k" * 32), b"n" * aead.NONCE_BYTES
    sealed = aead.seal_once(key, nonce, b"text", b"bound")
    assert aead.open_once(key, nonce, sealed, b"bound") == b"text"
    for bit in range(len(sealed) * 8):
        flipped = (int.from_bytes(sealed, "big") ^ (1 << bit)).to_bytes(len(sealed), "big")
        with pytest.raises(DecryptionFailed):
            aead.open_once(key, nonce, flipped, b"bound")
    with pytest.raises(DecryptionFailed):
        aead.open_once(key, nonce, sealed, b"elsewhere")


def test_a_stored_value_opens_only_in_its_place_and_never_repeats_a_nonce() -> None:
    vault, entropy = aead.StorageKey(SecretBytes(b"k" * 32)), Random(1).randbytes
    first, second = (vault.seal(b"value", b"table/row", entropy) for _ in range(2))

    assert first[: aead.NONCE_BYTES] != second[: aead.NONCE_BYTES]
    assert vault.open(first, b"table/row") == b"value"
    for octets, place in ((first, b"table/other"), (first[:5], b"table/row"), (b"", b"table/row")):
        with pytest.raises(DecryptionFailed):
            vault.open(octets, place)
