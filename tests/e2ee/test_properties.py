"""The properties that the end-to-end core promises (docs/spec/ratchet.md §5), each over many random schedules."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aimessage.crypto import aead, dh
from aimessage.e2ee.header import Header
from aimessage.e2ee.ratchet import KEM_AFTER_MESSAGES, MAX_CHAINS, MAX_SKIP, MAX_STORED
from aimessage.e2ee.session import Conversation, Envelope
from aimessage.errors import DecryptionFailed
from aimessage.types import SecretBytes
from support.agents import Party, acquainted, strangers

STEPS = st.lists(st.tuples(st.sampled_from("SRLDPK"), st.booleans(), st.integers(0, 7)), max_size=120)


def altered(envelope: Envelope, sealed: bytes) -> Envelope:
    return Envelope(envelope.sender, envelope.message_id, envelope.attempt, sealed)


def refused(party: Party, envelope: Envelope) -> None:
    before = party.conversation.dump()
    with pytest.raises(DecryptionFailed):
        party.try_open(envelope)
    assert party.conversation.dump() == before


class Schedule:
    """Loss, reordering, duplication and reloads between two parties, checked against a plain list."""

    def __init__(self, seed: int) -> None:
        self.parties = acquainted(seed)
        self.wire: dict[str, list[tuple[Envelope, bytes]]] = {"alice": [], "bobby": []}
        self.opened: list[Envelope] = []
        self.count = 0

    def step(self, action: str, first: bool, pick: int) -> None:
        party, other = self.parties if first else self.parties[::-1]
        inbound = self.wire[party.name]
        match action:
            case "S":
                self.count += 1
                body = b"%d" % self.count
                self.wire[other.name].append((party.seal(body), body))
            case "R" if inbound:
                envelope, body = inbound.pop(min(pick % 3, len(inbound) - 1))
                assert party.open(envelope) == body
                self.opened.append(envelope)
            case "L" if inbound:
                inbound.pop(0)
            case "D" if self.opened:
                envelope = self.opened[-1 - pick % len(self.opened)]
                refused(self.parties[0] if envelope.sender == "bobby" else self.parties[1], envelope)
            case "P":
                party.conversation = Conversation.load(party.conversation.dump())
            case "K":
                party.later(timedelta(minutes=40))
            case _:
                pass


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), STEPS)
def test_any_schedule_within_limits_opens_each_message_exactly_once(
    seed: int, steps: list[tuple[str, bool, int]]
) -> None:
    schedule = Schedule(seed)
    for action, first, pick in steps:
        # The oldest of more than a few unread turns would fall out of the five chains that are kept.
        if any(len(waiting) > 6 for waiting in schedule.wire.values()):
            for party in schedule.parties:
                for envelope, body in schedule.wire[party.name]:
                    assert party.open(envelope) == body
                schedule.wire[party.name].clear()
        schedule.step(action, first, pick)


def test_every_single_bit_flip_fails_and_leaves_the_state_as_it_was() -> None:
    alice, bobby = acquainted()
    envelope = alice.seal(b"x" * 40)
    for bit in range(len(envelope.sealed) * 8):
        flipped = bytearray(envelope.sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        refused(bobby, altered(envelope, bytes(flipped)))
    assert bobby.open(envelope) == b"x" * 40


def test_bit_flips_in_a_first_message_create_nothing() -> None:
    alice, bobby = strangers()
    alice.start(bobby)
    envelope = alice.seal(b"first")
    random = Random(5)
    for _ in range(400):
        flipped = bytearray(envelope.sealed)
        bit = random.randrange(len(flipped) * 8)
        flipped[bit // 8] ^= 1 << bit % 8
        refused(bobby, altered(envelope, bytes(flipped)))
    assert bobby.open(envelope) == b"first"


def test_a_swapped_id_attempt_or_sender_does_not_open() -> None:
    alice, bobby = acquainted()
    first, second = alice.seal(b"1"), alice.seal(b"2")
    refused(bobby, Envelope(first.sender, second.message_id, 0, first.sealed))
    refused(bobby, Envelope(first.sender, first.message_id, 1, first.sealed))
    refused(alice, first)  # reflected to its own sender
    assert (bobby.open(first), bobby.open(second)) == (b"1", b"2")


def test_an_encapsulation_key_is_answered_in_the_next_chain_and_never_twice() -> None:
    alice, bobby = acquainted()
    seen_public: set[bytes] = set()
    answers = 0
    sender, receiver = alice, bobby
    for turn in range(8 * KEM_AFTER_MESSAGES):
        envelope = sender.seal(b"%d" % turn)
        header, _, _ = Header.split(envelope.sealed)
        if header.kem_public:
            assert header.kem_public not in seen_public
            seen_public.add(header.kem_public)
        answers += bool(header.kem_ciphertext)
        receiver.open(envelope)
        sender, receiver = receiver, sender
    assert answers >= 6
    assert abs(answers - len(seen_public)) <= 1


def test_every_message_of_a_chain_carries_its_encapsulation_key() -> None:
    alice, bobby = acquainted()
    alice.later(timedelta(hours=2))
    bobby.open(alice.seal(b"turn"))
    alice.open(bobby.seal(b"turn"))  # alice's next chain advertises: two hours have passed for her
    burst = [alice.seal(b"%d" % at) for at in range(4)]
    keys = {Header.split(envelope.sealed)[0].kem_public for envelope in burst}
    assert len(keys) == 1 and keys != {b""}
    assert bobby.open(burst[3]) == b"3"  # the first three are late: the key was learned from the last
    assert alice.open(bobby.seal(b"answer")) == b"answer"
    assert [bobby.open(envelope) for envelope in burst[:3]] == [b"0", b"1", b"2"]


def test_a_ciphertext_for_an_unknown_encapsulation_key_changes_nothing() -> None:
    alice, bobby = acquainted()
    envelope = alice.seal(b"plain turn")
    header, _, ciphertext = Header.split(envelope.sealed)
    forged = Header(header.session_id, header.dh, header.before, header.number, header.salt, kem_ciphertext=bytes(1088))
    refused(bobby, altered(envelope, forged.encode() + ciphertext))
    assert bobby.open(envelope) == b"plain turn"


def test_clones_of_one_state_never_repeat_a_key_and_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[bytes, bytes]] = []
    original = aead.seal_once

    def recording(key: SecretBytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
        used.append((key.reveal, nonce))
        return original(key, nonce, plaintext, associated_data)

    monkeypatch.setattr(aead, "seal_once", recording)
    alice, _ = acquainted()
    snapshot = alice.conversation
    for _ in range(50):  # fifty clones of one vault, each sending from the same counter
        alice.conversation = snapshot
        alice.seal(b"from a clone")
    assert len(set(used)) == len(used) > 50


def test_an_old_state_cannot_derive_keys_that_were_deleted() -> None:
    alice, bobby = acquainted()
    envelope = alice.seal(b"gone")
    bobby.open(envelope)
    after = bobby.conversation
    for _ in range(3):
        bobby.open(alice.seal(b"on"))
        alice.open(bobby.seal(b"and on"))
    for state in (after, bobby.conversation):
        bobby.conversation = state
        refused(bobby, envelope)


def test_a_leaked_state_is_useless_after_the_leaked_party_turns() -> None:
    alice, bobby = acquainted()
    leaked = bobby.conversation
    alice.open(bobby.seal(b"from the leaked chain"))
    bobby.open(alice.seal(b"turn"))  # bobby draws a new key here, which the leak does not hold
    alice.open(bobby.seal(b"new key"))
    healed = alice.seal(b"secret again")
    assert bobby.try_open(healed).body == b"secret again"
    bobby.conversation = leaked
    refused(bobby, healed)


def test_a_jump_over_the_limit_is_refused_and_keeps_nothing() -> None:
    alice, bobby = acquainted()
    for _ in range(MAX_SKIP):
        alice.seal(b"lost")
    envelope = alice.seal(b"lost")
    late = alice.seal(b"too far")
    refused(bobby, late)
    assert bobby.open(envelope) == b"lost"  # exactly at the limit
    assert sum(len(chain.keys) for chain in bobby.conversation.sessions[0].ratchet.skipped) == MAX_SKIP


def test_skipped_keys_and_chains_stay_bounded() -> None:
    alice, bobby = acquainted()
    for _ in range(MAX_CHAINS + 3):
        for _ in range(600):
            alice.seal(b"lost")
        bobby.open(alice.seal(b"kept"))
        alice.open(bobby.seal(b"turn"))
    skipped = bobby.conversation.sessions[0].ratchet.skipped
    assert len(skipped) <= MAX_CHAINS
    assert sum(len(chain.keys) for chain in skipped) <= MAX_STORED


def test_skipped_keys_expire() -> None:
    alice, bobby = acquainted()
    late = alice.seal(b"late")
    bobby.open(alice.seal(b"in time"))
    bobby.later(timedelta(days=31))
    alice.seal(b"also lost")
    bobby.open(alice.seal(b"a month on"))
    refused(bobby, late)


def test_each_message_of_a_chain_has_its_own_counter() -> None:
    alice, _ = acquainted()
    numbers = [Header.split(alice.seal(b"n").sealed)[0].number for _ in range(20)]
    assert len(set(numbers)) == 20


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["relay_id", "username", "signing_key", "agreement_key", "vault_id", "epoch", "signed_prekey"]))
def test_a_swapped_field_of_the_bundle_stops_the_handshake(name: str) -> None:
    alice, bobby = strangers()
    mallory = Party("mallory", 99)
    changed = {
        "relay_id": b"another-relay-id", "username": "mallory", "signing_key": mallory.bundle.signing_key,
        "agreement_key": mallory.bundle.agreement_key, "vault_id": mallory.bundle.vault_id,
        "epoch": 7, "signed_prekey": dh.public_key(SecretBytes(bytes(31) + b"\x01")),
    }[name]  # fmt: skip
    bobby.bundle = replace(bobby.bundle, **{name: changed})
    with pytest.raises(DecryptionFailed):
        alice.start(bobby)
