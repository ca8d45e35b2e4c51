"""The derivations against their RFCs, and against the standard library's."""

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from aimessage.crypto.kdf import hkdf, hmac_sha256, sha1, sha256


def test_hkdf_agrees_with_rfc_5869_case_1() -> None:
    derived = hkdf(bytes(range(13)), b"\x0b" * 22, bytes(range(0xF0, 0xFA)), 42)

    assert derived.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def test_hmac_agrees_with_rfc_4231_case_2() -> None:
    mac = hmac_sha256(b"Jefe", b"what do ya want for nothing?")

    assert mac.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


@given(key=st.binary(max_size=200), message=st.binary(max_size=300))
def test_hmac_is_the_standard_librarys_for_every_length_of_key(key: bytes, message: bytes) -> None:
    assert hmac_sha256(key, message) == hmac.digest(key, message, "sha256")


@given(parts=st.lists(st.binary(max_size=100), max_size=4))
def test_the_hashes_are_the_standard_librarys(parts: list[bytes]) -> None:
    whole = b"".join(parts)

    assert sha256(*parts) == hashlib.sha256(whole).digest()
    assert sha1(whole) == hashlib.sha1(whole, usedforsecurity=False).digest()
