"""Sessions with one peer: how they start, replace one another, and refuse to be dragged back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aimessage.e2ee.identity import Identity
from aimessage.e2ee.session import MAX_SESSIONS, Conversation, Envelope, peek_identity
from aimessage.errors import DecryptionFailed, MalformedOctets
from aimessage.types import Username
from support.agents import Party, acquainted, strangers


def test_the_first_message_opens_and_names_the_pair_that_it_used() -> None:
    alice, bobby = strangers()
    alice.start(bobby)
    opened = bobby.try_open(alice.seal(b"hello"))
    assert opened.body == b"hello"
    assert opened.identity == alice.account.identity
    assert opened.used_pair in bobby.pair_secrets


def test_without_a_pair_the_last_resort_key_serves() -> None:
    alice, bobby = strangers()
    alice.start(bobby, with_pair=False)
    opened = bobby.try_open(alice.seal(b"hello"))
    assert opened.used_pair is None
    bobby.conversation = opened.conversation
    assert alice.open(bobby.seal(b"back")) == b"back"


def test_the_prekey_part_travels_until_the_peer_has_answered() -> None:
    alice, bobby = strangers()
    alice.start(bobby)
    first, second = alice.seal(b"1"), alice.seal(b"2")
    assert peek_identity(bobby.account, second) == alice.account.identity
    assert bobby.open(second) == b"2"  # the first is late
    assert bobby.open(first) == b"1"
    alice.open(bobby.seal(b"heard"))
    assert peek_identity(bobby.account, alice.seal(b"3")) is None


def test_a_replayed_first_message_finds_its_pair_gone() -> None:
    alice, bobby = strangers()
    alice.start(bobby)
    envelope = alice.seal(b"hello")
    bobby.open(envelope)
    bobby.meet(alice)  # even a receiver that forgot the session
    with pytest.raises(DecryptionFailed):
        bobby.try_open(envelope)


@given(st.integers(0, 50))
def test_when_both_start_at_once_both_settle_on_the_smaller_id(seed: int) -> None:
    alice, bobby = strangers(seed)
    alice.start(bobby)
    bobby.start(alice)
    from_alice, from_bobby = alice.seal(b"a"), bobby.seal(b"b")
    assert (bobby.open(from_alice), alice.open(from_bobby)) == (b"a", b"b")
    assert alice.conversation.sessions[0].session_id == bobby.conversation.sessions[0].session_id
    assert bobby.open(alice.seal(b"again")) == b"again"
    assert alice.open(bobby.seal(b"and back")) == b"and back"


def test_a_peer_that_lost_its_state_replaces_the_session() -> None:
    alice, bobby = acquainted()
    old = alice.conversation.sessions[0].session_id
    bobby.meet(alice)
    bobby.publish(epoch=2)
    alice.publish(epoch=2)
    bobby.start(alice, epoch=2)
    assert alice.open(bobby.seal(b"a new start")) == b"a new start"
    assert alice.conversation.sessions[0].session_id != old
    assert bobby.open(alice.seal(b"welcome back")) == b"welcome back"


def test_a_withheld_older_session_opens_but_does_not_lead() -> None:
    alice, bobby = strangers()
    alice.start(bobby)
    withheld = alice.seal(b"withheld")
    alice.start(bobby)
    bobby.open(alice.seal(b"newer"))
    leading = bobby.conversation.sessions[0].session_id
    assert bobby.open(withheld) == b"withheld"
    assert bobby.conversation.sessions[0].session_id == leading


def test_no_more_sessions_are_kept_than_the_limit() -> None:
    alice, bobby = strangers()
    for _ in range(MAX_SESSIONS + 3):
        alice.start(bobby, with_pair=False)
        bobby.open(alice.seal(b"again"))
    assert len(bobby.conversation.sessions) == len(alice.conversation.sessions) == MAX_SESSIONS


def test_a_retired_conversation_receives_but_does_not_send() -> None:
    alice, bobby = acquainted()
    alice.conversation = alice.conversation.retire()
    assert alice.open(bobby.seal(b"still heard")) == b"still heard"
    assert not alice.conversation.can_send
    with pytest.raises(DecryptionFailed):
        alice.seal(b"no")


def test_anothers_statement_does_not_pass_for_the_senders() -> None:
    _alice, bobby = strangers()
    mallory = Party("mallory", 9)
    mallory.meet(bobby)
    mallory.start(bobby)
    envelope = mallory.seal(b"I am alice")
    posed = replace(envelope, sender=Username("alice"))
    with pytest.raises(DecryptionFailed):
        bobby.try_open(posed)
    with pytest.raises(DecryptionFailed):
        peek_identity(bobby.account, posed)


def test_a_conversation_survives_the_vault() -> None:
    alice, bobby = acquainted()
    alice.conversation = Conversation.load(alice.conversation.dump())
    assert alice.conversation.peer == bobby.account.address
    assert alice.conversation.identity == bobby.account.identity
    assert isinstance(alice.conversation.identity, Identity)
    assert bobby.open(alice.seal(b"on")) == b"on"
    with pytest.raises(MalformedOctets):
        Conversation.load(b"\x00")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_a_message(sealed: bytes) -> None:
    _, bobby = acquainted()
    with pytest.raises(DecryptionFailed):
        bobby.try_open(Envelope(Username("alice"), bobby.seal(b"").message_id, 0, sealed))
