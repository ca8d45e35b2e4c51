"""Several sessions with one peer: whatever is withheld, lost or started at once, both sides end in the same one."""

from contextlib import suppress
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aimessage.e2ee.session import Conversation, Envelope
from aimessage.errors import DecryptionFailed
from aimessage.types import Username
from support.agents import Party, acquainted, strangers

SEEDS = range(0, 40, 2)  # which id is the smaller one differs from seed to seed


def lead(party: Party) -> bytes:
    sending = party.conversation._sending
    assert sending is not None
    return sending.session_id


def exchange(alice: Party, bobby: Party) -> None:
    bobby.open(alice.seal(b"x"))
    alice.open(bobby.seal(b"y"))


def split_start(seed: int) -> tuple[Party, Party]:
    """Both start at once, and bobby's own start is withheld until alice has heard an answer in hers."""
    alice, bobby = strangers(seed)
    alice.start(bobby)
    bobby.start(alice)
    from_alice, withheld = alice.seal(b"a"), bobby.seal(b"b")
    bobby.open(from_alice)
    alice.open(bobby.seal(b"an answer"))
    alice.open(withheld)
    return alice, bobby


@pytest.mark.parametrize("seed", SEEDS)
def test_a_withheld_simultaneous_start_cannot_split_the_pair(seed: int) -> None:
    alice, bobby = split_start(seed)
    exchange(alice, bobby)
    assert lead(alice) == lead(bobby)


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_a_leaked_state_is_useless_after_a_few_round_trips_whatever_was_withheld(seed: int) -> None:
    alice, bobby = split_start(seed)
    leaked = bobby.conversation.dump()
    for _ in range(3):
        exchange(alice, bobby)
    secret = alice.seal(b"secret")
    bobby.conversation = Conversation.load(leaked)
    with pytest.raises(DecryptionFailed):
        bobby.try_open(secret)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_peer_that_answers_with_a_fresh_session_takes_the_lead(seed: int) -> None:
    alice, bobby = strangers(seed)
    alice.start(bobby)
    bobby.open(alice.seal(b"hi"))
    bobby.conversation = bobby.conversation.retire()
    bobby.start(alice)
    alice.open(bobby.seal(b"again, please"))
    exchange(alice, bobby)
    assert lead(alice) == lead(bobby)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_peer_that_lost_its_vault_before_it_answered_is_written_to_in_the_new_session(seed: int) -> None:
    alice, bobby = strangers(seed)
    alice.start(bobby)
    bobby.open(alice.seal(b"hi"))
    bobby.meet(alice)
    bobby.bundles.clear()
    bobby.pair_secrets.clear()
    bobby.publish(epoch=2)
    bobby.start(alice, epoch=2)
    alice.open(bobby.seal(b"I am back"))
    assert bobby.open(alice.seal(b"welcome back")) == b"welcome back"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_restored_agent_that_has_published_nothing_yet_is_answered_where_it_wrote(seed: int) -> None:
    alice, bobby = acquainted(seed)
    alice.meet(bobby)
    alice.start(bobby, with_pair=False, epoch=2)
    assert bobby.open(alice.seal(b"restored")) == b"restored"
    assert alice.open(bobby.seal(b"reply")) == b"reply"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 16), steps=st.integers(4, 24))
def test_any_schedule_of_starts_and_deliveries_ends_in_one_session(seed: int, steps: int) -> None:
    random = Random(seed)
    alice, bobby = strangers(seed)
    for party in (alice, bobby):
        party.publish(epoch=1)
        party.pairs = []  # the last-resort key serves as often as one likes
    waiting: list[tuple[Party, Envelope]] = []
    parties = (alice, bobby)
    for _ in range(steps):
        ours, theirs = random.sample(parties, 2)
        if not ours.conversation.can_send or random.random() < 0.15:
            ours.start(theirs)
        waiting.append((theirs, ours.seal(b"m")))
        while waiting and random.random() < 0.6:
            to, envelope = waiting.pop(random.randrange(len(waiting)))
            _try(to, envelope)
    for to, envelope in waiting:
        _try(to, envelope)
    for ours, theirs in ((alice, bobby), (bobby, alice)):  # both may have dropped what was too old: then one more start
        if not ours.conversation.can_send:
            ours.start(theirs)
        theirs.open(ours.seal(b"m"))
    exchange(alice, bobby)
    assert lead(alice) == lead(bobby)


def _try(to: Party, envelope: Envelope) -> None:
    with suppress(DecryptionFailed):  # of a session that was dropped: the client asks again
        to.open(envelope)


def test_a_kept_key_expires_without_another_skip() -> None:
    alice, bobby = acquainted()
    late = alice.seal(b"late")
    bobby.open(alice.seal(b"in time"))
    bobby.later(timedelta(days=31))
    exchange(alice, bobby)
    assert late.sealed and not any(session.ratchet.skipped for session in bobby.conversation.sessions)
    with pytest.raises(DecryptionFailed):
        bobby.try_open(late)


@pytest.mark.parametrize("attempt", [-1, 1 << 16])
def test_an_impossible_attempt_does_not_open(attempt: int) -> None:
    alice, bobby = acquainted()
    with pytest.raises(DecryptionFailed):
        bobby.try_open(replace(alice.seal(b"x"), attempt=attempt))


def test_an_envelope_of_another_sender_does_not_open() -> None:
    alice, bobby = acquainted()
    with pytest.raises(DecryptionFailed):
        bobby.try_open(replace(alice.seal(b"x"), sender=Username("mallory")))
