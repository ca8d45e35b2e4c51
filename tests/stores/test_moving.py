"""From one store to another through the ports: the same is there, and nothing twice, however often it is begun."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from aimessage.errors import ConfigInvalid, StoreDamaged
from aimessage.stores.jetstream import Access, open_jetstream_store
from aimessage.stores.memory import open_memory_store
from aimessage.stores.moving import Holdings, holdings_of, move
from aimessage.stores.ports import Invite, Quotas, Refusal, Standing, Store, Subscription
from aimessage.stores.rocksdb import open_rocksdb_store
from aimessage.types import Username, VaultId
from support.nats import NatsServer
from support.stores import ALICE, BOB, NOW, VAULT, ManualClock, accepted, account, contents, name, number, post

UNBOUNDED = Quotas(messages=0, bytes=0, sender_share=0, controls=0, message_ttl_ms=0, control_ttl_ms=0)
PHONE = VaultId(b"p" * 16)
DAY = 86_400_000

Open = Callable[[str], Awaitable[Store]]


@pytest.fixture
async def opened(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def one(kind: str) -> Store:
            store: Store = open_memory_store(quotas=UNBOUNDED, clock=ManualClock())
            if kind == "jetstream":
                server: NatsServer = request.getfixturevalue("nats_server")
                await server.empty()
                store = await open_jetstream_store(
                    Access((server.url,), monitors=(server.monitor,)), quotas=UNBOUNDED, clock=ManualClock()
                )
            elif kind != "memory":
                store = await open_rocksdb_store(tmp_path / kind, quotas=UNBOUNDED, clock=ManualClock())
            stack.push_async_callback(store.close)
            return store

        yield one


INVITE = Invite(b"d" * 32, "for the new ones", NOW, 0, 5, used=2)


async def filled(store: Store) -> Store:
    """Give *store* three hundred accounts, and alice some of everything."""
    for value in range(300):
        await store.directory.register(account(name(value)))
    for owner in (ALICE, BOB):
        await store.directory.register(account(owner, key=owner.encode() * 8))
        await store.mailboxes.append([post(value, owner=owner, ttl=DAY) for value in range(1, 151)])
    await store.mailboxes.append([post(200, control=True, ttl=DAY), post(201, size=400)])
    await store.pairs.stock(ALICE, VAULT, [b"one", b"two", b"three"])
    await store.pairs.claim(ALICE, VAULT)
    for vault_id, generation in ((VAULT, 4), (PHONE, 2), (VAULT, 9)):
        await store.subscriptions.activate(ALICE, vault_id, generation)
    await store.states.put(ALICE, 2, b"state")
    await store.standings.set(BOB, Standing.BANNED)
    await store.invites.add(INVITE, now_ms=NOW)
    await store.invites.add(replace(INVITE, digest=bytes(32), expires_at=NOW - 1), now_ms=NOW)
    return store


async def moved(source: Store, target: Store) -> Holdings:
    return await move(
        source, target, retire=lambda: source.contents.retire("there"), now_ms=NOW, tell=lambda sentence: None
    )


@pytest.mark.parametrize(
    ("origin", "end"), [("memory", "rocksdb"), ("rocksdb", "other"), ("rocksdb", "jetstream"), ("jetstream", "memory")]
)
async def test_everything_is_in_the_new_store(opened: Open, origin: str, end: str) -> None:
    source, target = await filled(await opened(origin)), await opened(end)
    stocked = (await source.contents.stocks(ALICE))[VAULT]

    held = await moved(source, target)

    assert (held.accounts, held.messages, held.pairs) == (302, 302, 2)
    assert target.relay_id == source.relay_id
    for owner in (ALICE, BOB):
        ours, theirs = await contents(source.mailboxes, owner), await contents(target.mailboxes, owner)
        assert [
            replace(entry, position=entries.position) for entry, entries in zip(ours, theirs, strict=True)
        ] == theirs
    assert await target.directory.find(ALICE) == await source.directory.find(ALICE)
    assert await target.states.get(ALICE) == (2, b"state")
    assert await target.standings.all() == {BOB: Standing.BANNED}
    assert await target.invites.all() == [INVITE]
    newest = await target.subscriptions.current(ALICE)
    assert isinstance(newest, Subscription)
    assert (newest.vault_id, newest.generation) == (VAULT, 9)
    assert isinstance(await target.subscriptions.activate(ALICE, PHONE, 2), Refusal)
    assert {await target.pairs.claim(ALICE, VAULT) for _ in range(3)} == {*stocked, None}


@pytest.mark.parametrize("end", ["other", "jetstream"])
async def test_a_move_done_again_follows_what_has_changed_and_doubles_nothing(opened: Open, end: str) -> None:
    source, target = await filled(await opened("rocksdb")), await opened(end)
    await moved(source, target)
    first = (await contents(source.mailboxes))[0]
    await source.mailboxes.ack(ALICE, [(first.position, first.message_id)])
    accepted((await source.mailboxes.append([post(500)]))[0])
    await source.directory.publish(BOB, bundle=b"newer", vault_id=PHONE, epoch=2)
    await source.pairs.claim(ALICE, VAULT)

    held = await moved(source, target)

    assert held == await holdings_of(target, now_ms=NOW)
    found = [entry.message_id for entry in await contents(target.mailboxes)]
    assert first.message_id not in found
    assert found.count(number(500)) == 1
    assert len(found) == 152
    assert await target.contents.stocks(ALICE) == {VAULT: [b"three"]}


async def test_a_store_of_another_relay_is_not_moved_into(opened: Open) -> None:
    source, target = await filled(await opened("memory")), await opened("other")
    await target.directory.register(account(Username("carol")))
    its_own = target.relay_id

    with pytest.raises(ConfigInvalid, match="another relay"):
        await moved(source, target)

    assert target.relay_id == its_own
    assert await source.contents.successor() == ""


async def test_what_a_relay_took_in_at_the_new_store_too_early_is_told(opened: Open) -> None:
    source, target = await filled(await opened("memory")), await opened("other")
    await moved(source, target)
    await target.directory.register(account(Username("carol")))

    with pytest.raises(StoreDamaged, match=r"302 accounts.*303 accounts"):
        await moved(source, target)


@pytest.mark.parametrize("spoil", ["mail", "pair", "state", "standing", "generation", "bundle"])
async def test_the_digest_sees_every_kind_of_difference(opened: Open, spoil: str) -> None:
    one, other = await filled(await opened("memory")), await filled(await opened("rocksdb"))
    assert await holdings_of(one, now_ms=NOW) == await holdings_of(other, now_ms=NOW)

    match spoil:
        case "mail":
            await other.mailboxes.append([replace(post(900), sealed=b"different")])
            await one.mailboxes.append([post(900)])
        case "pair":
            await other.pairs.stock(ALICE, VAULT, [b"four"])
        case "state":
            await other.states.put(ALICE, 3, b"later")
        case "standing":
            await other.standings.set(ALICE, Standing.BANNED)
        case "generation":
            await other.subscriptions.activate(ALICE, PHONE, 3)
        case _:
            await other.directory.publish(BOB, bundle=b"newer", vault_id=VAULT, epoch=2)

    assert (await holdings_of(one, now_ms=NOW)).digest != (await holdings_of(other, now_ms=NOW)).digest
