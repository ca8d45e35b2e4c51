"""Bundles and pairs: one encoding each, and nothing else is read as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aimessage.errors import MalformedOctets
from aimessage.types import RelayId, Username, VaultId
from aimessage.wire.bundles import Bundle, OneTimePair

PAIR = OneTimePair(VaultId(b"v" * 16), b"a" * 32, b"k" * 1568, b"s" * 64)
BUNDLE = Bundle(
    relay_id=RelayId(b"r" * 16),
    username=Username("alice"),
    signing_key=b"i" * 32,
    agreement_key=b"d" * 32,
    identity_signature=b"s" * 64,
    vault_id=VaultId(b"v" * 16),
    epoch=7,
    not_before=1,
    not_after=2,
    signed_prekey=b"p" * 32,
    last_resort_key=b"l" * 1568,
    signature=b"S" * 64,
)


@given(st.integers(0, 2**64 - 1), st.from_regex(r"[a-z0-9][a-z0-9_-]{2,31}", fullmatch=True))
def test_a_bundle_comes_back_as_it_was(epoch: int, name: str) -> None:
    bundle = replace(BUNDLE, epoch=epoch, username=Username(name))
    assert Bundle.parse(bundle.encode()) == bundle


def test_a_pair_comes_back_as_it_was() -> None:
    assert OneTimePair.parse(PAIR.encode()) == PAIR


@pytest.mark.parametrize(("kind", "octets"), [(Bundle, BUNDLE.encode()), (OneTimePair, PAIR.encode())])
def test_another_suite_a_short_or_a_long_structure_is_refused(
    kind: type[Bundle] | type[OneTimePair], octets: bytes
) -> None:
    cut = [octets[:size] for size in range(0, len(octets), 41)]
    for wrong in (b"\x02" + octets[1:], octets + b"\x00", octets[:-1], *cut):
        with pytest.raises(MalformedOctets):
            kind.parse(wrong)


def test_a_name_that_is_not_ascii_is_refused() -> None:
    with pytest.raises(MalformedOctets):
        Bundle.parse(BUNDLE.encode().replace(b"alice", b"\xc3\xa4lic"))
