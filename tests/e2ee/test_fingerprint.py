"""What people compare: the same from both sides, and different for anyone else."""

import json
import os
from pathlib import Path

import pytest

from aimessage.e2ee.fingerprint import (
    fingerprint,
    numeric_fingerprint,
    parse_recipient,
    require_match,
    safety_number,
    self_certifying,
)
from aimessage.errors import BadValue, PeerIdentityChanged, UsernameMalformed
from support.agents import Party, strangers


def test_both_sides_see_the_same_sixty_digits() -> None:
    alice, bobby = strangers()
    ours = (alice.account.address, alice.account.identity)
    theirs = (bobby.account.address, bobby.account.identity)
    number = safety_number(ours, theirs)
    assert number == safety_number(theirs, ours)
    assert len(number) == 60 and number.isdigit()
    mallory = Party("mallory", 9)
    assert number != safety_number(ours, (bobby.account.address, mallory.account.identity))


def test_a_self_certifying_address_names_one_identity() -> None:
    alice, bobby = strangers()
    username, prefix = parse_recipient(self_certifying(alice.account.address.username, alice.account.identity))
    assert username == "alice" and prefix is not None and len(prefix) == 52
    require_match(prefix, alice.account.identity)
    require_match(prefix[:26], alice.account.identity)
    with pytest.raises(PeerIdentityChanged):
        require_match(prefix[:26], bobby.account.identity)
    assert fingerprint(alice.account.identity) != fingerprint(bobby.account.identity)


def test_a_plain_name_pins_nothing() -> None:
    assert parse_recipient("Alice") == ("alice", None)


@pytest.mark.parametrize("raw", ["alice~", "alice~abc", "alice~" + "a" * 25, "alice~" + "a" * 53, "alice~" + "1" * 30])
def test_short_or_crooked_prefixes_are_refused(raw: str) -> None:
    with pytest.raises(BadValue):
        parse_recipient(raw)


def test_a_malformed_name_is_refused_first() -> None:
    with pytest.raises(UsernameMalformed):
        parse_recipient("no spaces~" + "a" * 30)


VECTORS = os.environ.get("AIMESSAGE_VECTORS")


@pytest.mark.skipif(not VECTORS, reason="AIMESSAGE_VECTORS names no directory of vectors")
def test_signals_published_safety_number() -> None:
    case = json.loads((Path(VECTORS or "") / "signal-kats" / "signal_kats.json").read_text())["safety_number"]
    halves = (
        numeric_fingerprint(case[f"{name}_id"].encode(), bytes.fromhex(case[f"{name}_key"]))
        for name in ("alice", "bob")
    )
    assert "".join(sorted(halves)) == case["display"]
