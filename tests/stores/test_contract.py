"""What every store guarantees, whatever keeps it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from aimessage.errors import RecipientUnknown
from aimessage.stores.invitations import KEPT
from aimessage.stores.ports import Invite, Refusal, Registered, Standing, Store, Stored, Subscription
from aimessage.types import Position, VaultId
from support.stores import ALICE, BOB, NOW, VAULT, ManualClock, accepted, account, contents, name, number, post

OpenStore = Callable[..., Awaitable[Store]]
OTHER_VAULT = VaultId(b"w" * 16)


async def test_entries_come_back_in_order_and_as_they_were(store: Store) -> None:
    answers = await store.mailboxes.append([post(value) for value in range(1, 200)])

    found = await contents(store.mailboxes)

    assert [entry.message_id for entry in found] == [number(value) for value in range(1, 200)]
    assert [entry.position for entry in found] == [accepted(answer).position for answer in answers]
    assert found[0].sealed == post(1).sealed
    assert (found[0].sender, found[0].attempt, found[0].mail_class, found[0].accepted_at) == (BOB, 0, 0, NOW)


async def test_a_stream_starts_above_the_position_that_it_is_given(store: Store) -> None:
    answers = await store.mailboxes.append([post(1), post(2), post(3)])

    found = await contents(store.mailboxes, after=accepted(answers[0]).position)

    assert [entry.message_id for entry in found] == [number(2), number(3)]


async def test_pages_follow_one_another_and_none_is_above_its_limit(store: Store) -> None:
    await store.mailboxes.append([post(1), post(2, ttl=1_000), post(3), post(4), post(5)])

    found, after, is_last = list[Stored](), Position(0), False
    while not is_last:
        page = await store.mailboxes.page(ALICE, after=after, now_ms=NOW + 1_000, limit=2)
        assert len(page.entries) <= 2
        found += page.entries
        after, is_last = page.after, page.is_last

    assert [entry.message_id for entry in found] == [number(1), number(3), number(4), number(5)]


async def test_an_empty_mailbox_is_caught_up_at_once(store: Store) -> None:
    page = await store.mailboxes.page(ALICE, after=Position(0), now_ms=NOW, limit=8)

    assert (list(page.entries), page.is_last) == ([], True)


async def test_a_repeated_posting_repeats_its_acceptance_and_is_stored_once(store: Store) -> None:
    [first] = await store.mailboxes.append([post(1, ttl=5000)])

    [again] = await store.mailboxes.append([replace(post(1), accepted_at=NOW + 77)])

    assert again == replace(accepted(first), duplicate=True)
    assert len(await contents(store.mailboxes)) == 1


async def test_a_posting_repeated_within_one_batch_is_stored_once(store: Store) -> None:
    first, again = await store.mailboxes.append([post(1), post(1)])

    assert again == replace(accepted(first), duplicate=True)


async def test_another_attempt_or_another_sender_is_another_entry(store: Store) -> None:
    await store.mailboxes.append([post(1), replace(post(1), attempt=1), post(1, sender=name(1))])

    assert len(await contents(store.mailboxes)) == 3


async def test_mailboxes_do_not_mix(store: Store) -> None:
    await store.mailboxes.append([post(1), post(2, owner=BOB), post(3, owner=name(1))])

    assert [entry.message_id for entry in await contents(store.mailboxes, BOB)] == [number(2)]


async def test_an_acked_entry_is_gone_and_acking_it_again_does_nothing(store: Store) -> None:
    [answer] = await store.mailboxes.append([post(1)])
    position = accepted(answer).position

    assert await store.mailboxes.ack(ALICE, [(position, number(1))]) == 1
    assert await store.mailboxes.ack(ALICE, [(position, number(1))]) == 0
    assert await contents(store.mailboxes) == []
    assert await store.mailboxes.depth(ALICE) == (0, 0)


async def test_an_ack_whose_id_or_owner_does_not_match_is_ignored(store: Store) -> None:
    [answer] = await store.mailboxes.append([post(1)])
    position = accepted(answer).position

    assert await store.mailboxes.ack(ALICE, [(position, number(2))]) == 0
    assert await store.mailboxes.ack(BOB, [(position, number(1))]) == 0
    assert len(await contents(store.mailboxes)) == 1


async def test_an_acked_posting_can_come_again_at_a_higher_position(store: Store) -> None:
    [first] = await store.mailboxes.append([post(1)])
    await store.mailboxes.ack(ALICE, [(accepted(first).position, number(1))])

    [again] = await store.mailboxes.append([post(1)])

    assert not accepted(again).duplicate
    assert accepted(again).position > accepted(first).position


async def test_acks_out_of_order_leave_the_rest(store: Store) -> None:
    answers = await store.mailboxes.append([post(value) for value in range(1, 7)])
    for value in (2, 1, 4):
        await store.mailboxes.ack(ALICE, [(accepted(answers[value - 1]).position, number(value))])
        await contents(store.mailboxes)

    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(3), number(5), number(6)]


@pytest.mark.parametrize(
    "changes",
    [{"attempt": -1}, {"attempt": 1 << 32}, {"expires_at": -1}, {"expires_at": 1 << 64}, {"message_id": b"short"}],
)
async def test_a_posting_with_impossible_values_is_refused_and_disturbs_nobody(
    store: Store, changes: dict[str, object]
) -> None:
    answers = await store.mailboxes.append([replace(post(1), **changes), post(2)])

    assert isinstance(answers[0], Refusal)
    assert answers[0].code == "bad_value"
    accepted(answers[1])


async def test_acks_and_subscriptions_with_impossible_numbers_change_nothing(store: Store) -> None:
    await store.mailboxes.append([post(1)])

    impossible = [(Position(value), number(1)) for value in (-1, 0, 1 << 64)]
    assert await store.mailboxes.ack(ALICE, impossible) == 0
    assert isinstance(await store.subscriptions.activate(ALICE, VAULT, -1), Refusal)
    assert not await store.states.put(ALICE, -1, b"")
    assert len(await contents(store.mailboxes)) == 1


async def test_a_full_mailbox_refuses_and_evicts_nothing(open_store: OpenStore) -> None:
    store = await open_store(messages=3, sender_share=0)

    answers = await store.mailboxes.append([post(value) for value in range(1, 5)])

    assert isinstance(answers[3], Refusal)
    assert answers[3].code == "mailbox_full"
    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(1), number(2), number(3)]


async def test_a_mailbox_full_of_bytes_refuses(open_store: OpenStore) -> None:
    store = await open_store(bytes=100, sender_share=0)

    answers = await store.mailboxes.append(
        [post(1, size=60), post(2, size=60, sender=name(1)), post(3, size=40, sender=name(2))]
    )

    assert [isinstance(answer, Refusal) for answer in answers] == [False, True, False]
    assert await store.mailboxes.depth(ALICE) == (2, 100)


async def test_behind_a_message_that_did_not_fit_nothing_of_its_sender_overtakes_it(open_store: OpenStore) -> None:
    store = await open_store(bytes=100, sender_share=0)

    answers = await store.mailboxes.append(
        [post(1, size=60), post(2, size=60), post(3, size=8), post(4, control=True), post(5, owner=BOB, sender=ALICE)]
    )
    later = await store.mailboxes.append([post(6, size=8)])

    assert [isinstance(answer, Refusal) for answer in answers] == [False, True, True, False, False]
    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(1), number(4), number(6)]
    assert all(map(accepted, later))


async def test_one_sender_fills_only_its_share(open_store: OpenStore) -> None:
    store = await open_store(messages=8, sender_share=0.25)

    answers = await store.mailboxes.append([post(1), post(2), post(3), post(4, sender=name(1))])

    assert [isinstance(answer, Refusal) for answer in answers] == [False, False, True, False]


async def test_an_acked_entry_gives_its_room_back(open_store: OpenStore) -> None:
    store = await open_store(messages=4, sender_share=0.25)
    [first] = await store.mailboxes.append([post(1)])
    await store.mailboxes.ack(ALICE, [(accepted(first).position, number(1))])

    [answer] = await store.mailboxes.append([post(2)])

    accepted(answer)


async def test_control_mail_evicts_its_oldest_and_touches_no_message(open_store: OpenStore) -> None:
    store = await open_store(messages=1, controls=2)
    await store.mailboxes.append([post(1)])

    answers = await store.mailboxes.append([post(value, control=True) for value in (2, 3, 4)])

    assert all(accepted(answer) for answer in answers)
    assert [entry.message_id for entry in await contents(store.mailboxes)] == [number(1), number(3), number(4)]


async def test_control_mail_of_two_senders_under_one_id_counts_twice(open_store: OpenStore) -> None:
    store = await open_store(controls=2)

    await store.mailboxes.append([post(1, control=True, sender=name(value)) for value in (1, 2, 3)])

    assert [entry.sender for entry in await contents(store.mailboxes)] == [name(2), name(3)]


async def test_a_quota_of_zero_is_no_bound(open_store: OpenStore) -> None:
    store = await open_store(messages=0, bytes=0, controls=0, message_ttl_ms=0)

    answers = await store.mailboxes.append([post(value, control=value % 2 == 0) for value in range(1, 60)])

    assert accepted(answers[0]).expires_at == 0
    assert all(accepted(answer) for answer in answers)


async def test_a_life_is_capped_by_its_class(open_store: OpenStore) -> None:
    store = await open_store(message_ttl_ms=1000, control_ttl_ms=100)

    answers = await store.mailboxes.append(
        [post(1), post(2, ttl=9999), post(3, ttl=10), post(4, control=True), post(5, control=True, ttl=9999)]
    )

    assert [accepted(answer).expires_at - NOW for answer in answers] == [1000, 1000, 10, 100, 100]


async def test_an_expired_entry_is_never_yielded_and_expire_deletes_it(store: Store) -> None:
    await store.mailboxes.append([post(1, ttl=100), post(2, ttl=200), post(3, ttl=300), post(4, owner=BOB, ttl=100)])

    assert [entry.message_id for entry in await contents(store.mailboxes, now_ms=NOW + 200)] == [number(3)]
    assert await store.mailboxes.expire(NOW + 200, limit=2) == 2
    assert await store.mailboxes.expire(NOW + 200, limit=2) == 1
    assert await store.mailboxes.expire(NOW + 200, limit=2) == 0
    assert (await store.mailboxes.depth(ALICE))[0] == 1


async def test_of_fifty_claims_on_a_name_one_wins_and_all_are_told_who(store: Store) -> None:
    claims = [account(ALICE, bytes([value]) * 32) for value in range(50)]

    answers = await asyncio.gather(*map(store.directory.register, claims))

    assert len({answer.signing_key for answer in answers}) == 1
    assert await store.directory.find(ALICE) == answers[0]


async def test_an_unknown_name_is_not_found_and_publishes_nothing(store: Store) -> None:
    assert await store.directory.find(ALICE) is None
    with pytest.raises(RecipientUnknown):
        await store.directory.publish(ALICE, bundle=b"new", vault_id=VAULT, epoch=2)


async def test_a_published_bundle_replaces_the_old_one_and_keeps_the_owner(store: Store) -> None:
    await store.directory.register(account(ALICE))

    await store.directory.publish(ALICE, bundle=b"new", vault_id=OTHER_VAULT, epoch=9)

    expected = replace(account(ALICE), bundle=b"new", vault_id=OTHER_VAULT, epoch=9)
    assert await store.directory.find(ALICE) == expected


async def test_names_come_in_order_page_by_page(store: Store) -> None:
    for value in (4, 1, 3, 0, 2):
        await store.directory.register(account(name(value)))

    first = await store.directory.names(after="", limit=3)
    second = await store.directory.names(after=first[-1], limit=3)

    assert [*first, *second] == [name(value) for value in range(5)]
    assert await store.directory.names(after=second[-1], limit=3) == []


async def test_of_two_hundred_claims_none_gets_the_same_pair(store: Store) -> None:
    pairs = [value.to_bytes(40, "big") for value in range(150)]
    assert await store.pairs.stock(ALICE, VAULT, pairs) == 150

    claims = await asyncio.gather(*(store.pairs.claim(ALICE, VAULT) for _ in range(200)))

    served = [claim for claim in claims if claim is not None]
    assert sorted(served) == pairs
    assert await store.pairs.count(ALICE) == 0


async def test_a_pair_in_stock_is_not_stocked_twice(store: Store) -> None:
    assert await store.pairs.stock(ALICE, VAULT, [b"one", b"two", b"one"]) == 2
    assert await store.pairs.stock(ALICE, VAULT, [b"two", b"three"]) == 3


async def test_a_pair_that_was_claimed_may_be_stocked_again(store: Store) -> None:
    await store.pairs.stock(ALICE, VAULT, [b"one"])
    assert await store.pairs.claim(ALICE, VAULT) == b"one"

    assert await store.pairs.stock(ALICE, VAULT, [b"one"]) == 1


async def test_pairs_of_another_vault_are_neither_served_nor_kept(store: Store) -> None:
    await store.directory.register(account(ALICE))
    await store.pairs.stock(ALICE, VAULT, [b"one", b"two"])
    assert await store.pairs.claim(ALICE, OTHER_VAULT) is None
    assert await store.pairs.stock(ALICE, OTHER_VAULT, [b"three"]) == 3

    await store.directory.publish(ALICE, bundle=b"new", vault_id=OTHER_VAULT, epoch=2)

    assert await store.pairs.claim(ALICE, VAULT) is None
    assert await store.pairs.count(ALICE) == 1
    assert await store.pairs.claim(ALICE, OTHER_VAULT) == b"three"


async def test_each_subscription_has_the_next_number(store: Store) -> None:
    assert await store.subscriptions.current(ALICE) is None

    first = await store.subscriptions.activate(ALICE, VAULT, 1)
    second = await store.subscriptions.activate(ALICE, OTHER_VAULT, 1)

    assert first == Subscription(1, VAULT, 1)
    assert second == Subscription(2, OTHER_VAULT, 1) == await store.subscriptions.current(ALICE)


async def test_a_generation_that_is_not_higher_is_stale_even_after_another_vault(store: Store) -> None:
    await store.subscriptions.activate(ALICE, VAULT, 5)
    await store.subscriptions.activate(ALICE, OTHER_VAULT, 1)

    for generation in (4, 5):
        answer = await store.subscriptions.activate(ALICE, VAULT, generation)
        assert isinstance(answer, Refusal)
        assert answer.code == "generation_stale"
    assert await store.subscriptions.activate(ALICE, VAULT, 6) == Subscription(3, VAULT, 6)


async def test_of_many_clones_with_one_generation_one_subscribes(store: Store) -> None:
    answers = await asyncio.gather(*(store.subscriptions.activate(ALICE, VAULT, 7) for _ in range(20)))

    assert sum(isinstance(answer, Subscription) for answer in answers) == 1


async def test_a_state_is_replaced_only_by_a_higher_version(store: Store) -> None:
    assert await store.states.get(ALICE) == (0, b"")
    assert await store.states.put(ALICE, 3, b"three")
    assert not await store.states.put(ALICE, 3, b"other three")
    assert not await store.states.put(ALICE, 2, b"two")

    assert await store.states.get(ALICE) == (3, b"three")


async def test_an_owner_is_online_while_one_of_its_links_is(store: Store) -> None:
    for owner in (ALICE, ALICE, BOB):
        await store.presence.arrive(owner)
    for owner in (ALICE, BOB):
        await store.presence.leave(owner)

    assert await store.presence.online() == {ALICE}


async def test_a_limit_lets_so_many_events_of_a_key_through_in_its_seconds(store: Store, clock: ManualClock) -> None:
    async def take(key: str = "a") -> float:
        return await store.budgets.take(key, limit=3, seconds=20.0)

    assert await store.budgets.wait("a", limit=3, seconds=20.0) == 0.0
    assert [await take() for _ in range(3)] == [0.0, 0.0, 0.0]
    wait = await take()
    assert 20.0 <= wait <= 21.0
    assert await store.budgets.wait("a", limit=3, seconds=20.0) == wait
    assert await take("another") == 0.0
    assert await store.budgets.take("a", limit=0, seconds=20.0) == 0.0  # no limit

    clock.seconds += wait
    assert await take() == 0.0


async def test_many_keys_do_not_empty_each_other(store: Store, clock: ManualClock) -> None:
    assert await store.budgets.take("spent", limit=1, seconds=600.0) == 0.0
    for value in range(2_000):
        clock.seconds += 0.001
        assert await store.budgets.take(f"peer {value}", limit=1, seconds=600.0) == 0.0

    assert await store.budgets.take("spent", limit=1, seconds=600.0) > 0


async def test_this_relay_is_one_of_those_on_the_store(store: Store) -> None:
    assert await store.presence.relays() == 1


async def test_a_store_has_a_random_id_and_takes_writes(store: Store) -> None:
    assert len(store.relay_id) == 16
    assert await store.check_writable() is None


async def test_the_totals_are_those_of_all_mailboxes(store: Store) -> None:
    await store.mailboxes.append([post(1), post(2), replace(post(3), owner=name(1))])
    [entry] = (await contents(store.mailboxes))[:1]
    await store.mailboxes.ack(ALICE, [(entry.position, entry.message_id)])

    assert await store.mailboxes.totals() == (2, len(post(2).sealed) + len(post(3).sealed))


async def test_what_the_operator_has_decided_outlives_the_store_and_can_be_taken_back(open_store: OpenStore) -> None:
    store = await open_store()
    await store.standings.set(ALICE, Standing.BANNED)
    await store.standings.set(BOB, Standing.REMOVED)

    assert await store.standings.all() == {ALICE: Standing.BANNED, BOB: Standing.REMOVED}

    await store.standings.set(ALICE, Standing.GOOD)

    assert await store.standings.of(ALICE) is Standing.GOOD
    assert await store.standings.all() == {BOB: Standing.REMOVED}


def invite(value: int = 0, *, uses: int = 1, expires_at: int = 0) -> Invite:
    """Return one of many invitations that nobody has used."""
    return Invite(value.to_bytes(32, "big"), f"label {value}", NOW, expires_at, uses)


async def code_of(store: Store, account: Registered, digest: bytes, now_ms: int = NOW) -> str:
    """Return the code that a registration by invitation is refused with, "" if *account* has its name then."""
    answer = await store.invites.register(account, digest, now_ms=now_ms)
    if isinstance(answer, Refusal):
        return answer.code
    return "" if answer == account else "username_taken"


async def test_an_invitation_is_good_for_as_many_registrations_as_it_says(store: Store) -> None:
    assert await store.invites.add(invite(uses=2), now_ms=NOW) is None

    codes = [await code_of(store, account(name(value)), invite().digest) for value in range(4)]

    assert codes == ["", "", "invite_refused", "invite_refused"]
    assert await store.directory.names(after="", limit=9) == [name(0), name(1)]
    assert await store.invites.all() == [replace(invite(uses=2), used=2)]


async def test_of_fifty_who_come_at_once_with_one_invitation_one_gets_in(store: Store) -> None:
    await store.invites.add(invite(), now_ms=NOW)

    codes = await asyncio.gather(*(code_of(store, account(name(value)), invite().digest) for value in range(50)))

    assert sorted(codes) == ["", *["invite_refused"] * 49]
    assert len(await store.directory.names(after="", limit=99)) == 1


async def test_a_registration_that_loses_the_name_leaves_the_invitation_unused(store: Store) -> None:
    await store.directory.register(account(ALICE))
    await store.invites.add(invite(), now_ms=NOW)

    assert await code_of(store, account(ALICE, b"other" * 6 + b"kk"), invite().digest) == "username_taken"
    assert await code_of(store, account(BOB), invite().digest) == ""


async def test_of_many_keys_with_an_invitation_each_that_race_for_a_name_one_is_used(store: Store) -> None:
    for value in range(20):
        await store.invites.add(invite(value), now_ms=NOW)

    claims = [account(ALICE, bytes([value]) * 32) for value in range(20)]
    await asyncio.gather(*(code_of(store, claim, invite(at).digest) for at, claim in enumerate(claims)))

    assert sum(kept.used for kept in await store.invites.all()) == 1


async def test_the_same_key_registers_again_with_any_invitation_and_uses_none(store: Store) -> None:
    await store.invites.add(invite(1), now_ms=NOW)
    await store.invites.add(invite(2), now_ms=NOW)
    await store.invites.register(account(ALICE), invite(1).digest, now_ms=NOW)

    for digest in (invite(1).digest, invite(2).digest, b"unknown"):
        assert await code_of(store, account(ALICE), digest) == ""

    assert [kept.used for kept in await store.invites.all()] == [1, 0]


async def test_an_unknown_or_expired_invitation_tells_nothing_of_the_name_and_claims_none(store: Store) -> None:
    await store.directory.register(account(ALICE))
    await store.invites.add(invite(expires_at=NOW + 100), now_ms=NOW)

    for stranger in (account(ALICE, b"x" * 32), account(BOB)):
        assert await code_of(store, stranger, b"unknown") == "invite_refused"
        assert await code_of(store, stranger, invite().digest, now_ms=NOW + 100) == "invite_refused"

    assert await store.directory.find(BOB) is None
    assert await code_of(store, account(BOB), invite().digest, now_ms=NOW + 99) == ""


async def test_a_revoked_invitation_is_gone(store: Store) -> None:
    await store.invites.add(invite(), now_ms=NOW)

    assert await store.invites.revoke(invite().digest)
    assert not await store.invites.revoke(invite().digest)
    assert await store.invites.all() == []
    assert await code_of(store, account(ALICE), invite().digest) == "invite_refused"


async def test_invitations_that_are_over_make_room_and_no_other_does(store: Store) -> None:
    made = [invite(value, expires_at=NOW + 5 if value < 2 else 0) for value in range(KEPT)]
    answers = await asyncio.gather(*(store.invites.add(one, now_ms=NOW) for one in made))
    assert set(answers) == {None}

    refused = await store.invites.add(invite(KEPT), now_ms=NOW)
    taken = await store.invites.add(invite(KEPT), now_ms=NOW + 5)

    assert isinstance(refused, Refusal)
    assert refused.code == "over_limit"
    assert taken is None
    assert [kept.digest for kept in await store.invites.all()] == [invite(value).digest for value in range(2, KEPT + 1)]
