"""An evil relay between two agents, each attack a case of its own: refused, no trace of it, and the next one opens.

What the relay hands to a sender (bundles, pairs) comes first, then what it does to messages on their way.
"""

from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from aimessage.crypto import kem, signing
from aimessage.e2ee import identity
from aimessage.e2ee.bodies import Body, decode_body, encode_body
from aimessage.e2ee.fingerprint import require_match, safety_number, self_certifying
from aimessage.e2ee.handshake import PrekeyPart
from aimessage.e2ee.header import Header
from aimessage.e2ee.identity import Identity
from aimessage.e2ee.prekeys import identity_of, verify_bundle, verify_pair
from aimessage.e2ee.ratchet import MAX_SKIP
from aimessage.e2ee.session import MAX_SESSIONS, Conversation, Envelope
from aimessage.errors import DecryptionFailed, PeerIdentityChanged
from aimessage.types import Address, MessageId, RelayId, SecretBytes, Username, VaultId
from aimessage.wire.bundles import Bundle, OneTimePair
from endurance.core_kinds import BODY, KINDS
from support.agents import NOON, RELAY, Party, acquainted, strangers

FORGER = Party("mallory", 666)


def refused(party: Party, envelope: Envelope) -> None:
    """Nothing opens, nothing changes."""
    before, secrets = party.conversation.dump(), (set(party.bundles), set(party.pair_secrets))
    with pytest.raises(DecryptionFailed):
        party.try_open(envelope)
    assert party.conversation.dump() == before
    assert (set(party.bundles), set(party.pair_secrets)) == secrets


def they_talk(alice: Party, bobby: Party) -> None:
    """Honest mail goes both ways."""
    assert bobby.open(alice.seal(b"the next")) == b"the next"
    assert alice.open(bobby.seal(b"an answer")) == b"an answer"
    assert bobby.open(alice.seal(b"one more")) == b"one more"


# A bundle that is not the peer's.

BUNDLE_FIELDS: dict[str, Callable[[Bundle], object]] = {
    "relay_id": lambda _: RelayId(b"another-relay-id"),
    "username": lambda _: Username("mallory"),
    "signing_key": lambda _: FORGER.bundle.signing_key,
    "agreement_key": lambda _: FORGER.bundle.agreement_key,
    "identity_signature": lambda _: FORGER.bundle.identity_signature,
    "vault_id": lambda _: FORGER.bundle.vault_id,
    "epoch": lambda bundle: bundle.epoch + 1,
    "not_before": lambda bundle: bundle.not_before - 1,
    "not_after": lambda bundle: bundle.not_after + 1,
    "signed_prekey": lambda _: FORGER.bundle.signed_prekey,
    "last_resort_key": lambda _: FORGER.bundle.last_resort_key,
}


def bundle_signatures(owner: Party, changed: Bundle) -> dict[str, bytes]:
    """What a relay has at hand to sign a changed bundle with."""
    nonces = {"relay_nonce": bytes(32), "client_nonce": bytes(32), "vault_id": bytes(16)}
    return {
        "as it was": changed.signature,
        "the relay's own": signing.sign(FORGER.account.signing, signing.bundle_transcript(changed.content)),
        "the statement's": changed.identity_signature,
        "a pair's": owner.pairs[0].signature,
        "a proof's": identity.prove(owner.account, "localhost", **nonces),
        "none": bytes(signing.SIGNATURE_BYTES),
    }


SIGNATURES = tuple(bundle_signatures(FORGER, FORGER.bundle))


def cannot_start(alice: Party, bobby: Party) -> None:
    before = alice.conversation.dump()
    with pytest.raises(DecryptionFailed):
        alice.start(bobby)
    assert alice.conversation.dump() == before


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("name", BUNDLE_FIELDS)
def test_a_bundle_with_a_swapped_field_starts_nothing(name: str, signature: str) -> None:
    alice, bobby = strangers()
    honest = bobby.bundle
    changed = replace(honest, **{name: BUNDLE_FIELDS[name](honest)})
    bobby.bundle = replace(changed, signature=bundle_signatures(bobby, changed)[signature])
    cannot_start(alice, bobby)
    bobby.bundle = honest
    alice.start(bobby)
    they_talk(alice, bobby)


@pytest.mark.parametrize("signature", [name for name in SIGNATURES if name != "as it was"])
def test_a_bundle_with_another_signature_starts_nothing(signature: str) -> None:
    alice, bobby = strangers()
    bobby.bundle = replace(bobby.bundle, signature=bundle_signatures(bobby, bobby.bundle)[signature])
    cannot_start(alice, bobby)


@pytest.mark.parametrize(
    "name", ["relay_id", "username", "signing_key", "agreement_key", "identity_signature", "not_after"]
)
def test_an_owner_who_signs_for_what_is_not_its_own_starts_nothing(name: str) -> None:
    alice, bobby = strangers()
    value = bobby.bundle.not_before - 200_000 if name == "not_after" else BUNDLE_FIELDS[name](bobby.bundle)
    changed = replace(bobby.bundle, **{name: value})
    by_owner = signing.sign(bobby.account.signing, signing.bundle_transcript(changed.content))
    bobby.bundle = replace(changed, signature=by_owner)
    cannot_start(alice, bobby)


@pytest.mark.parametrize("suite", [0, 2, 255])
def test_a_bundle_or_a_pair_of_another_suite_is_refused(suite: int) -> None:
    alice, bobby = strangers()
    for octets in (bobby.bundle.encode(), bobby.pairs[0].encode(), FORGER.bundle.encode()):
        downgraded = bytes([suite]) + octets[1:]
        with pytest.raises(DecryptionFailed):
            verify_bundle(downgraded, bobby.account.address, now=NOON)
        with pytest.raises(DecryptionFailed):
            verify_pair(downgraded, bobby.bundle)
    alice.start(bobby)
    they_talk(alice, bobby)


def test_every_cut_of_a_bundle_or_a_pair_is_refused() -> None:
    _, bobby = strangers()
    bundle, pair = bobby.bundle.encode(), bobby.pairs[0].encode()
    for length in range(0, len(bundle), 7):
        with pytest.raises(DecryptionFailed):
            verify_bundle(bundle[:length], bobby.account.address, now=NOON)
    for length in range(0, len(pair), 7):
        with pytest.raises(DecryptionFailed):
            verify_pair(pair[:length], bobby.bundle)
    for octets in (bundle + b"\x00", pair, pair + bundle):
        with pytest.raises(DecryptionFailed):
            verify_bundle(octets, bobby.account.address, now=NOON)


def test_a_bundle_that_the_relay_made_up_is_another_identity_to_whoever_knows_the_first() -> None:
    alice, bobby = strangers()
    impostor = Party("bobby", 667)  # a name is no proof: its bundle is in order, and nobody's but the relay's
    served = verify_bundle(impostor.bundle.encode(), bobby.account.address, now=NOON)
    ours = (alice.account.address, alice.account.identity)
    numbers = {
        safety_number(ours, (bobby.account.address, each)) for each in (identity_of(served), bobby.account.identity)
    }
    assert len(numbers) == 2
    _, _, prefix = self_certifying(Username("bobby"), bobby.account.identity).partition("~")
    for length in range(26, 53):
        require_match(prefix[:length], bobby.account.identity)
        with pytest.raises(PeerIdentityChanged):
            require_match(prefix[:length], identity_of(served))


def test_what_was_sealed_for_an_invented_bundle_opens_nothing_at_its_name() -> None:
    alice, bobby = strangers()
    impostor = Party("bobby", 667)
    alice.start(impostor)
    refused(bobby, alice.seal(b"for the impostor"))
    alice.meet(bobby)
    alice.start(bobby)
    they_talk(alice, bobby)


@pytest.mark.parametrize("days", [-2, 92, 3650])
def test_a_bundle_outside_its_dates_starts_nothing(days: int) -> None:
    alice, bobby = strangers()
    alice.later(timedelta(days=days))
    cannot_start(alice, bobby)


def test_an_older_bundle_after_a_newer_one_is_refused() -> None:
    _, bobby = strangers()
    old = bobby.bundle.encode()
    bobby.publish(epoch=2)
    newest = verify_bundle(bobby.bundle.encode(), bobby.account.address, now=NOON, least_epoch=1)
    with pytest.raises(DecryptionFailed):
        verify_bundle(old, bobby.account.address, now=NOON, least_epoch=newest.epoch)


# A one-time pair that is not for this session.


def _of_an_earlier_vault(bobby: Party) -> bytes:
    earlier = bobby.pairs[0]
    bobby.publish(epoch=2)
    return earlier.encode()


def _resigned(pair: OneTimePair) -> bytes:
    signature = signing.sign(FORGER.account.signing, signing.pair_transcript(pair.content))
    return replace(pair, signature=signature).encode()


PAIRS: dict[str, Callable[[Party], bytes]] = {
    "another agent's": lambda _: FORGER.pairs[0].encode(),
    "another agent's, for this vault": lambda bobby: _resigned(
        replace(FORGER.pairs[0], vault_id=VaultId(bobby.bundle.vault_id))
    ),
    "of an earlier vault": _of_an_earlier_vault,
    "swapped agreement key": lambda bobby: replace(bobby.pairs[0], agreement_key=bobby.pairs[1].agreement_key).encode(),
    "swapped encapsulation key": lambda bobby: replace(
        bobby.pairs[0], encapsulation_key=bobby.pairs[1].encapsulation_key
    ).encode(),
    "swapped signature": lambda bobby: replace(bobby.pairs[0], signature=bobby.pairs[1].signature).encode(),
    "the bundle's signature": lambda bobby: replace(bobby.pairs[0], signature=bobby.bundle.signature).encode(),
    "a bundle": lambda bobby: bobby.bundle.encode(),
    "longer": lambda bobby: bobby.pairs[0].encode() + b"\x00",
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_swapped_pair_is_refused(name: str) -> None:
    _, bobby = strangers()
    octets = PAIRS[name](bobby)
    with pytest.raises(DecryptionFailed):
        verify_pair(octets, bobby.bundle)


def test_a_flipped_bit_of_a_pair_is_refused() -> None:
    _, bobby = strangers()
    octets = bobby.pairs[0].encode()
    for bit in range(0, len(octets) * 8, 11):
        flipped = bytearray(octets)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptionFailed):
            verify_pair(bytes(flipped), bobby.bundle)


def test_a_pair_that_was_served_twice_opens_once() -> None:
    bobby, alice, carol = Party("bobby", 2), Party("alice", 1), Party("carol", 3)
    served = bobby.pairs[-1]
    for sender in (alice, carol):
        sender.meet(bobby)
        bobby.pairs.append(served)
        sender.start(bobby)
    bobby.meet(alice)
    they_talk(alice, bobby)
    bobby.meet(carol)
    refused(bobby, carol.seal(b"too late"))
    carol.start(bobby, with_pair=False)
    they_talk(carol, bobby)


def test_a_fork_of_genuine_bundles_gives_two_sessions_that_know_nothing_of_each_other() -> None:
    bobby, alice, carol = Party("bobby", 2), Party("alice", 1), Party("carol", 3)
    alice.meet(bobby)
    alice.start(bobby)  # alice is served the old bundle,
    bobby.publish(epoch=2)
    carol.meet(bobby)
    carol.start(bobby)  # and carol the new one
    for_alice, for_carol = Conversation.empty(alice.account.address), Conversation.empty(carol.account.address)
    for sender, own, other in ((alice, for_alice, for_carol), (carol, for_carol, for_alice)):
        envelope = sender.seal(b"mine")
        bobby.conversation = other
        refused(bobby, envelope)
        bobby.conversation = own
        assert bobby.open(envelope) == b"mine"
        they_talk(sender, bobby)


# A message that is not as it was sealed, or not where it belongs.


OTHER_ID = MessageId(b"another-msg-id-!")
KEM_KEY = kem.ML_KEM_768.public_key(SecretBytes(bytes(kem.SEED_BYTES)))


def remade(envelope: Envelope, change: Callable[[Header], Header]) -> Envelope:
    """The message under a changed header."""
    header, _, ciphertext = Header.split(envelope.sealed)
    return replace(envelope, sealed=change(header).encode() + ciphertext)


def with_flags(envelope: Envelope, flags: int) -> Envelope:
    """The message with some of its flags the other way round."""
    sealed = envelope.sealed
    return replace(envelope, sealed=sealed[:1] + bytes([sealed[1] ^ flags]) + sealed[2:])


def with_part(envelope: Envelope, change: Callable[[PrekeyPart], PrekeyPart]) -> Envelope:
    """The message with a changed prekey part."""
    _, part, _ = Header.split(envelope.sealed)
    assert part is not None
    return remade(envelope, lambda header: replace(header, prekey=change(part).encode()))


def of_another_session(kind: str) -> Envelope:
    """A message of the same kind, between the same two names, of a session with other keys."""
    return KINDS[kind](4242)[2]


def spliced(kind: str, envelope: Envelope) -> Envelope:
    """The header of one message in front of the ciphertext of another."""
    _, _, ciphertext = Header.split(of_another_session(kind).sealed)
    header, _, _ = Header.split(envelope.sealed)
    return replace(envelope, sealed=header.encode() + ciphertext)


TAMPERS: dict[str, Callable[[str, Envelope], Envelope]] = {
    "the next attempt": lambda _, it: replace(it, attempt=it.attempt + 1),
    "the last attempt": lambda _, it: replace(it, attempt=0xFFFF),
    "another id": lambda _, it: replace(it, message_id=OTHER_ID),
    "suite 0": lambda _, it: replace(it, sealed=b"\x00" + it.sealed[1:]),
    "suite 2": lambda _, it: replace(it, sealed=b"\x02" + it.sealed[1:]),
    "flag 1": lambda _, it: with_flags(it, 1),
    "flag 2": lambda _, it: with_flags(it, 2),
    "flag 4": lambda _, it: with_flags(it, 4),
    "all flags": lambda _, it: with_flags(it, 7),
    "an unknown flag": lambda _, it: with_flags(it, 8),
    "another session's id": lambda kind, it: remade(
        it, lambda header: replace(header, session_id=Header.split(of_another_session(kind).sealed)[0].session_id)
    ),
    "another ratchet key": lambda _, it: remade(it, lambda h: replace(h, dh=FORGER.bundle.signed_prekey)),
    "a ratchet key of small order": lambda _, it: remade(it, lambda h: replace(h, dh=bytes(32))),
    "a ratchet key that is not canonical": lambda _, it: remade(it, lambda h: replace(h, dh=b"\xff" * 32)),
    "the next number": lambda _, it: remade(it, lambda h: replace(h, number=h.number + 1)),
    "a number at the limit": lambda _, it: remade(it, lambda h: replace(h, number=h.number + MAX_SKIP)),
    "a number over the limit": lambda _, it: remade(it, lambda h: replace(h, number=h.number + MAX_SKIP + 1)),
    "the highest number": lambda _, it: remade(it, lambda h: replace(h, number=0xFFFF_FFFF)),
    "a longer chain before": lambda _, it: remade(it, lambda h: replace(h, before=h.before + 1)),
    "the longest chain before": lambda _, it: remade(it, lambda h: replace(h, before=0xFFFF_FFFF)),
    "another salt": lambda _, it: remade(it, lambda h: replace(h, salt=bytes(16))),
    "an invented KEM key": lambda _, it: remade(it, lambda h: replace(h, kem_public=KEM_KEY)),
    "an invalid KEM key": lambda _, it: remade(it, lambda h: replace(h, kem_public=b"\xff" * 1184)),
    "an invented KEM ciphertext": lambda _, it: remade(it, lambda h: replace(h, kem_ciphertext=bytes(1088))),
    "another session's message": lambda kind, it: replace(it, sealed=of_another_session(kind).sealed),
    "another session's ciphertext": spliced,
    "a byte more": lambda _, it: replace(it, sealed=it.sealed + b"\x00"),
    "twice over": lambda _, it: replace(it, sealed=it.sealed * 2),
    "a bundle": lambda _, it: replace(it, sealed=FORGER.bundle.encode()),
    "a pair": lambda _, it: replace(it, sealed=FORGER.pairs[0].encode()),
}


@pytest.mark.parametrize("name", TAMPERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_is_not_as_it_was_sealed_is_refused(kind: str, name: str) -> None:
    sender, receiver, envelope = KINDS[kind](21)
    tampered = TAMPERS[name](kind, envelope)
    assert tampered != envelope
    refused(receiver, tampered)
    assert receiver.open(envelope) == BODY
    they_talk(sender, receiver)


def _by_forger(part: PrekeyPart) -> PrekeyPart:
    return replace(
        part, identity=FORGER.account.identity, statement=identity.state_identity(Party("alice", 666).account)
    )


PART_TAMPERS: dict[str, Callable[[PrekeyPart], PrekeyPart]] = {
    "the pair stripped": lambda part: replace(part, pair_reference=None),
    "an unknown pair": lambda part: replace(part, pair_reference=bytes(31) + b"\x01"),
    "an unknown bundle": lambda part: replace(part, bundle_reference=bytes(32)),
    "another KEM ciphertext": lambda part: replace(part, ciphertext=bytes(1568)),
    "another ephemeral key": lambda part: replace(part, ephemeral=FORGER.bundle.signed_prekey),
    "an ephemeral key of small order": lambda part: replace(part, ephemeral=bytes(32)),
    "the highest order": lambda part: replace(part, order=2**64 - 1),
    "a higher order": lambda part: replace(part, order=part.order + 1),
    "another's identity": lambda part: replace(part, identity=FORGER.account.identity),
    "another's identity, well stated": _by_forger,
    "another's statement": lambda part: replace(part, statement=FORGER.bundle.identity_signature),
    "another's agreement key": lambda part: replace(
        part, identity=Identity(part.identity.signing_key, FORGER.account.identity.agreement_key)
    ),
}


@pytest.mark.parametrize("name", PART_TAMPERS)
def test_a_changed_prekey_part_starts_nothing(name: str) -> None:
    alice, bobby, envelope = KINDS["first message with a pair"](22)
    refused(bobby, with_part(envelope, PART_TAMPERS[name]))
    assert bobby.open(envelope) == BODY
    they_talk(alice, bobby)


def test_nobody_starts_a_session_under_anothers_signing_key() -> None:
    alice, bobby = strangers()
    stolen = Identity(alice.account.identity.signing_key, FORGER.account.identity.agreement_key)
    forger = Party("alice", 666)
    forger.account = replace(forger.account, identity=stolen)
    forger.meet(bobby)
    forger.start(bobby)
    refused(bobby, forger.seal(b"I am alice"))
    alice.start(bobby)
    they_talk(alice, bobby)


def test_a_session_that_the_relay_starts_under_a_peers_name_shows_another_identity() -> None:
    alice, bobby = strangers()
    alice.start(bobby)
    they_talk(alice, bobby)
    before = bobby.conversation.dump()
    forger = Party("alice", 666)
    forger.meet(bobby)
    forger.start(bobby)
    opened = bobby.try_open(forger.seal(b"I am alice"))  # the pin decides, and keeps nothing of it
    assert opened.identity == FORGER.account.identity != alice.account.identity
    assert bobby.conversation.dump() == before
    they_talk(alice, bobby)


STRIPS: dict[str, Callable[[Header], Header]] = {
    "first message with a pair": lambda header: replace(header, prekey=b""),
    "first message without a pair": lambda header: replace(header, prekey=b""),
    "with a KEM key": lambda header: replace(header, kem_public=b""),
    "with a KEM ciphertext": lambda header: replace(header, kem_ciphertext=b""),
}


@pytest.mark.parametrize("kind", STRIPS)
def test_a_stripped_part_is_missed(kind: str) -> None:
    sender, receiver, envelope = KINDS[kind](23)
    refused(receiver, remade(envelope, STRIPS[kind]))
    assert receiver.open(envelope) == BODY
    they_talk(sender, receiver)


def test_a_prekey_part_moved_to_another_message_of_its_session_is_refused() -> None:
    alice, bobby, first = KINDS["first message with a pair"](24)
    bobby.open(first)
    part = Header.split(first.sealed)[0].prekey
    alice.open(bobby.seal(b"heard"))
    envelope = alice.seal(b"without a part")
    refused(bobby, remade(envelope, lambda header: replace(header, prekey=part)))
    assert bobby.open(envelope) == b"without a part"
    they_talk(alice, bobby)


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_of_a_message_is_refused(kind: str) -> None:
    sender, receiver, envelope = KINDS[kind](25)
    edges = {*range(100), *range(len(envelope.sealed) - 150, len(envelope.sealed))}
    for length in sorted(edges | set(range(0, len(envelope.sealed), 13))):
        refused(receiver, replace(envelope, sealed=envelope.sealed[:length]))
    assert receiver.open(envelope) == BODY
    they_talk(sender, receiver)


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_is_refused_at_once_and_after_a_turn(kind: str) -> None:
    sender, receiver, envelope = KINDS[kind](26)
    receiver.open(envelope)
    for replayed in (envelope, replace(envelope, attempt=1), replace(envelope, message_id=OTHER_ID)):
        refused(receiver, replayed)
    they_talk(sender, receiver)
    refused(receiver, envelope)
    receiver.conversation = Conversation.load(receiver.conversation.dump())
    refused(receiver, envelope)
    they_talk(sender, receiver)


def test_a_replayed_first_message_whose_session_was_forgotten_finds_its_pair_gone() -> None:
    alice, bobby, envelope = KINDS["first message with a pair"](27)
    bobby.open(envelope)
    for _ in range(MAX_SESSIONS):
        alice.start(bobby, with_pair=False)
        bobby.open(alice.seal(b"again"))
    assert Header.split(envelope.sealed)[0].session_id not in {each.session_id for each in bobby.conversation.sessions}
    refused(bobby, envelope)
    they_talk(alice, bobby)


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_message_comes_back_as_the_peers(kind: str) -> None:
    sender, receiver, envelope = KINDS[kind](28)
    refused(sender, replace(envelope, sender=Username(receiver.name)))
    assert receiver.open(envelope) == BODY
    they_talk(sender, receiver)


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_message_comes_back_under_our_own_name(kind: str) -> None:
    sender, _, envelope = KINDS[kind](29)
    sender.conversation = Conversation.empty(sender.account.address)
    refused(sender, envelope)


@pytest.mark.parametrize("kind", KINDS)
def test_another_name_as_the_sender_leads_to_a_conversation_where_it_does_not_open(kind: str) -> None:
    sender, receiver, envelope = KINDS[kind](30)
    theirs = receiver.conversation
    receiver.conversation = Conversation.empty(Address(RELAY, Username("carol")))
    refused(receiver, replace(envelope, sender=Username("carol")))
    receiver.conversation = theirs
    assert receiver.open(envelope) == BODY
    they_talk(sender, receiver)


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_for_one_agent_does_not_open_at_another(kind: str) -> None:
    sender, _, envelope = KINDS[kind](31)
    carol = Party("carol", 77)
    carol.meet(sender)
    refused(carol, envelope)
    carol.start(sender, with_pair=False)
    refused(carol, envelope)


def test_mail_in_any_order_across_turns_opens_each_once() -> None:
    alice, bobby = acquainted()
    mail: list[tuple[Envelope, bytes]] = []
    for turn in range(3):
        mail += [(alice.seal(body), body) for body in (b"%d a" % turn, b"%d b" % turn, b"%d c" % turn)]
        bobby.open(alice.seal(b"turn"))
        alice.open(bobby.seal(b"turn"))
    for envelope, body in reversed(mail):
        assert bobby.open(envelope) == body
        refused(bobby, envelope)
    they_talk(alice, bobby)


def test_dropped_mail_costs_nothing_but_itself() -> None:
    alice, bobby = acquainted()
    for _ in range(3):
        for _ in range(20):
            alice.seal(b"dropped")
            bobby.seal(b"dropped")
        they_talk(alice, bobby)


def test_control_mail_is_known_by_its_sealed_kind_and_not_by_the_class_on_the_envelope() -> None:
    alice, bobby = acquainted()
    for kind, control in (("text", False), ("data", False), ("receipt", True), ("retry", True)):
        opened = decode_body(bobby.open(alice.seal(encode_body(Body(kind, bytes(16), 0, 0)))))
        assert (opened.kind, opened.is_control) == (kind, control)
