"""Several relays on one store: what one changes, the others see."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack

import pytest
from msgspec.structs import replace

from aimessage.errors import ConfigInvalid
from aimessage.stores.jetstream import Access, JetStreamStore, open_jetstream_store
from aimessage.stores.jetstream.layout import record
from aimessage.stores.jetstream.records import Records
from aimessage.stores.ports import Quotas, Receipt, Refusal, Subscription
from aimessage.types import Username
from support.nats import NatsServer
from support.stores import ALICE, BOB, VAULT, ManualClock, accepted, account, contents, name, number, post


def access(server: NatsServer) -> Access:
    return Access((server.url,), monitors=(server.monitor,))


@pytest.fixture
async def stores(nats_server: NatsServer, clock: ManualClock) -> AsyncIterator[list[JetStreamStore]]:
    await nats_server.empty()
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            store = await open_jetstream_store(access(nats_server), quotas=Quotas(messages=8), clock=clock)
            stack.push_async_callback(store.close)
            opened.append(store)
        yield opened


async def test_both_are_one_relay(stores: list[JetStreamStore]) -> None:
    assert stores[0].relay_id == stores[1].relay_id


async def test_a_message_stored_by_one_is_read_and_acked_by_the_other(stores: list[JetStreamStore]) -> None:
    one, two = stores
    [answer] = await one.mailboxes.append([post(1)])

    assert [entry.message_id for entry in await contents(two.mailboxes)] == [number(1)]
    assert await two.mailboxes.ack(ALICE, [(accepted(answer).position, number(1))]) == 1
    assert await one.mailboxes.ack(ALICE, [(accepted(answer).position, number(1))]) == 0
    assert await contents(one.mailboxes) == []


async def test_a_message_sent_again_by_way_of_the_other_is_stored_once(stores: list[JetStreamStore]) -> None:
    one, two = stores
    [first] = await one.mailboxes.append([post(1)])
    await two.mailboxes.append([post(2, sender=name(2))])  # now it has counted the mailbox

    answers = await two.mailboxes.append(
        [post(3, sender=name(3)), replace(post(1), accepted_at=post(1).accepted_at + 9), post(4, sender=name(4))]
    )

    assert answers[1] == replace(accepted(first), duplicate=True)
    assert [accepted(answer).duplicate for answer in answers] == [False, True, False]
    assert [entry.message_id for entry in await contents(one.mailboxes)] == [number(it) for it in (1, 2, 3, 4)]


async def test_the_same_messages_at_both_at_once_are_stored_once_and_in_order(stores: list[JetStreamStore]) -> None:
    batch = [post(value, sender=name(value), owner=BOB) for value in range(1, 7)]

    for_one, for_two = await asyncio.gather(*(store.mailboxes.append(batch) for store in stores))

    positions = [accepted(answer).position for answer in for_one]
    assert positions == [accepted(answer).position for answer in for_two]
    assert [entry.position for entry in await contents(stores[0].mailboxes, BOB)] == positions


async def test_room_that_the_other_has_made_is_seen_before_anything_is_refused(stores: list[JetStreamStore]) -> None:
    one, two = stores
    first = await one.mailboxes.append([post(1), post(2)])
    [refused] = await one.mailboxes.append([post(3)])
    assert isinstance(refused, Refusal)
    assert refused.code == "mailbox_full"

    await two.mailboxes.ack(ALICE, [(accepted(first[0]).position, number(1))])

    [answer] = await one.mailboxes.append([post(3)])
    accepted(answer)


async def test_after_ten_seconds_a_relay_knows_what_the_other_has_filled(
    stores: list[JetStreamStore], clock: ManualClock
) -> None:
    one, two = stores
    await two.mailboxes.append([post(9, owner=BOB, sender=ALICE)])
    await one.mailboxes.append([post(1, owner=BOB, sender=ALICE)])
    clock.seconds += 10

    answers = await two.mailboxes.append([post(2, owner=BOB, sender=ALICE)])

    assert isinstance(answers[0], Refusal)


async def test_of_fifty_registrations_over_both_one_wins(stores: list[JetStreamStore]) -> None:
    claims = [stores[value % 2].directory.register(account(ALICE, bytes([value]) * 32)) for value in range(50)]

    answers = await asyncio.gather(*claims)

    assert len({answer.signing_key for answer in answers}) == 1
    assert {(await store.directory.find(ALICE)) for store in stores} == set(answers)


async def test_of_many_claims_over_both_none_gets_the_same_pair(stores: list[JetStreamStore]) -> None:
    pairs = [value.to_bytes(40, "big") for value in range(60)]
    await stores[0].pairs.stock(ALICE, VAULT, pairs)

    claims = await asyncio.gather(*(stores[value % 2].pairs.claim(ALICE, VAULT) for value in range(80)))

    assert sorted(claim for claim in claims if claim is not None) == pairs


async def test_of_clones_at_both_one_subscribes(stores: list[JetStreamStore]) -> None:
    answers = await asyncio.gather(*(stores[it % 2].subscriptions.activate(ALICE, VAULT, 7) for it in range(20)))

    assert sum(isinstance(answer, Subscription) for answer in answers) == 1


async def test_a_change_wakes_the_other_relay_if_its_owner_is_there(stores: list[JetStreamStore]) -> None:
    one, two = stores
    mail: asyncio.Queue[Collection[Username]] = asyncio.Queue()
    subscriptions: asyncio.Queue[Collection[Username]] = asyncio.Queue()
    two.observe_changes(mail.put_nowait, subscriptions.put_nowait)
    await two.presence.arrive(ALICE)
    await two.settled()

    await one.mailboxes.append([post(1, owner=BOB), post(2)])
    await one.subscriptions.activate(ALICE, VAULT, 1)

    async with asyncio.timeout(60):
        assert await mail.get() == [ALICE]
        assert await subscriptions.get() == [ALICE]
    await two.presence.leave(ALICE)


async def test_who_is_at_one_is_online_at_the_other(stores: list[JetStreamStore], clock: ManualClock) -> None:
    one, two = stores
    await one.presence.arrive(ALICE)
    await two.presence.arrive(BOB)

    async with asyncio.timeout(60):
        while await two.presence.online() != {ALICE, BOB}:
            clock.seconds += 1

    await one.presence.leave(ALICE)
    async with asyncio.timeout(60):
        while await two.presence.online() != {BOB}:
            clock.seconds += 1
    await two.presence.leave(BOB)


async def test_both_count_against_one_limit(stores: list[JetStreamStore]) -> None:
    takes = [await stores[value % 2].budgets.take("b", limit=4, seconds=60.0) for value in range(6)]

    assert [take == 0.0 for take in takes] == [True] * 4 + [False] * 2


async def test_both_at_once_get_no_more_than_the_limit(stores: list[JetStreamStore]) -> None:
    takes = await asyncio.gather(*(stores[at % 2].budgets.take("b", limit=20, seconds=60.0) for at in range(60)))

    assert takes.count(0.0) == 20


async def test_each_knows_of_the_other(stores: list[JetStreamStore], clock: ManualClock) -> None:
    async with asyncio.timeout(60):
        while [await store.presence.relays() for store in stores] != [2, 2]:
            clock.seconds += 1
            await asyncio.sleep(0.05)


async def test_what_was_acknowledged_survives_a_server_that_is_killed(
    nats_server: NatsServer, stores: list[JetStreamStore]
) -> None:
    one, two = stores
    answers = await one.mailboxes.append([post(value, sender=name(value)) for value in range(1, 9)])
    assert all(isinstance(answer, Receipt) for answer in answers)

    await asyncio.to_thread(nats_server.restart, hard=True)

    async with asyncio.timeout(60):
        while await two.check_writable() is not None:
            pass
    assert len(await contents(two.mailboxes)) == 8


async def test_a_store_of_another_layout_is_refused(nats_server: NatsServer, stores: list[JetStreamStore]) -> None:
    records = Records(stores[0].bus)
    await records.write(record("store"), b'{"schema": 1, "relay_id": "00", "partitions": 3}')

    with pytest.raises(ConfigInvalid, match="3 partitions"):
        await open_jetstream_store(access(nats_server), clock=ManualClock())
