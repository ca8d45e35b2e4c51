from aimessage.crypto.kdf import hkdf


def test_hkdf_agrees_with_rfc_5869_case_1() -> None:
    derived = hkdf(bytes(range(13)), b"\x0b" * 22, bytes(range(0xF0, 0xFA)), 42)

    assert derived.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
