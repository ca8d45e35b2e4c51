"""The wrappers against Wycheproof, ACVP and CCTV."""

import pytest

from aimessage.crypto import aead, dh, kdf, kem, signing
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes
from support.vectors import acvp_keys, modulus_keys, wycheproof

unhex = bytes.fromhex
each_set = pytest.mark.parametrize("parameters", [kem.ML_KEM_768, kem.ML_KEM_1024], ids=lambda each: each.name)


def file_of(parameters: kem.ParameterSet) -> str:
    return parameters.name.replace("ML-KEM-", "mlkem_")


def test_aes_gcm_agrees_with_wycheproof() -> None:
    valid = invalid = 0
    for group, case in wycheproof("aes_gcm"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        key, nonce, bound = SecretBytes(unhex(case["key"])), unhex(case["iv"]), unhex(case["aad"])
        sealed = unhex(case["ct"] + case["tag"])
        if case["result"] == "valid":
            valid += 1
            assert aead.open_once(key, nonce, sealed, bound) == unhex(case["msg"])
            assert aead.seal_once(key, nonce, unhex(case["msg"]), bound) == sealed
        else:
            invalid += 1
            with pytest.raises(DecryptionFailed):
                aead.open_once(key, nonce, sealed, bound)
    assert valid > 0
    assert invalid > 0


def test_x25519_agrees_with_wycheproof_and_refuses_what_the_protocol_refuses() -> None:
    agreed = refused = 0
    for _, case in wycheproof("x25519"):
        private, public, shared = SecretBytes(unhex(case["private"])), unhex(case["public"]), unhex(case["shared"])
        canonical = int.from_bytes(public, "little") < 2**255 - 19
        if canonical and any(shared):
            agreed += 1
            assert dh.agree(private, public) == shared
        else:
            refused += 1
            with pytest.raises(DecryptionFailed):
                dh.agree(private, public)
    assert agreed > 0
    assert refused > 0


def test_ed25519_agrees_with_wycheproof() -> None:
    valid = invalid = 0
    for group, case in wycheproof("ed25519"):
        public, signature, message = unhex(group["publicKey"]["pk"]), unhex(case["sig"]), unhex(case["msg"])
        if case["result"] == "valid":
            valid += 1
            signing.verify(public, signature, message)
        else:
            invalid += 1
            with pytest.raises(DecryptionFailed):
                signing.verify(public, signature, message)
    assert valid > 0
    assert invalid > 0


def test_hkdf_agrees_with_wycheproof() -> None:
    ran = 0
    for _, case in wycheproof("hkdf_sha256"):
        if case["result"] == "valid":
            ran += 1
            derived = kdf.hkdf(unhex(case["salt"]), unhex(case["ikm"]), unhex(case["info"]), case["size"])
            assert derived == unhex(case["okm"])
    assert ran > 0


def test_hmac_agrees_with_wycheproof() -> None:
    ran = 0
    for group, case in wycheproof("hmac_sha256"):
        ran += 1
        tag = kdf.hmac_sha256(unhex(case["key"]), unhex(case["msg"]))[: group["tagSize"] // 8]
        assert (tag == unhex(case["tag"])) == (case["result"] == "valid")
    assert ran > 0


def test_pbkdf2_agrees_with_wycheproof() -> None:
    ran = 0
    for _, case in wycheproof("pbkdf2_hmacsha256"):
        if case["result"] == "valid" and case["iterationCount"] <= 100_000:
            ran += 1
            derived = kdf.pbkdf2(
                SecretBytes(unhex(case["password"])), unhex(case["salt"]), rounds=case["iterationCount"]
            )
            size = min(32, case["dkLen"])
            assert derived.reveal[:size] == unhex(case["dk"])[:size]
    assert ran > 0


@each_set
def test_ml_kem_decapsulation_agrees_with_wycheproof(parameters: kem.ParameterSet) -> None:
    ran = 0
    for _, case in wycheproof(file_of(parameters)):
        if case["result"] == "valid":
            ran += 1
            seed = SecretBytes(unhex(case["seed"]))
            assert parameters.public_key(seed) == unhex(case["ek"])
            assert parameters.decapsulate(seed, unhex(case["c"])).reveal == unhex(case["K"])
    assert ran > 0


@each_set
def test_ml_kem_refuses_the_invalid_keys_of_wycheproof(parameters: kem.ParameterSet) -> None:
    ran = 0
    for _, case in wycheproof(f"{file_of(parameters)}_encaps"):
        if case["result"] == "invalid":
            ran += 1
            with pytest.raises(DecryptionFailed):
                parameters.encapsulate(unhex(case["ek"]))
    assert ran > 0


@each_set
def test_ml_kem_key_generation_agrees_with_acvp(parameters: kem.ParameterSet) -> None:
    ran = 0
    for case in acvp_keys(parameters.name):
        ran += 1
        assert parameters.public_key(SecretBytes(unhex(case["d"] + case["z"]))) == unhex(case["ek"])
    assert ran > 0


@each_set
def test_ml_kem_refuses_every_key_that_is_not_reduced(parameters: kem.ParameterSet) -> None:
    ran = 0
    for public in modulus_keys(parameters.name):
        ran += 1
        assert len(public) == parameters.public_bytes
        with pytest.raises(DecryptionFailed):
            parameters.require_valid(public)
    assert ran > 0
