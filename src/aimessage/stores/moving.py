"""From any store to any other, through the ports alone: copy, compare, and keep the old one from being used again.

Everything here may be interrupted and done again: what is there already is found there, and what the source no longer
holds is taken away. One-time pairs go last, and only when the source is retired: one that two stores could serve would
be served twice. Positions and the numbers of subscriptions are the new store's own; no agent keeps either.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from msgspec.structs import astuple, replace

from aimessage.errors import ConfigInvalid, RelayUnavailable, StoreDamaged
from aimessage.stores.invitations import is_over
from aimessage.stores.pages import all_entries
from aimessage.stores.ports import Invite, Posting, Refusal, Registered, Store, Stored
from aimessage.types import MessageId, Position, Username, VaultId

__all__ = ["Holdings", "holdings_of", "move"]

_encode = msgspec.msgpack.Encoder().encode
_PAGE = 256
_AT_ONCE = 16
_BATCH_MESSAGES = 100
_BATCH_BYTES = 2 << 20
_SETTLED_MS = 3_600_000
"""Mail that ends within the hour is moved, and not compared: a store may drop it while it is being read."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a store holds, and a SHA-256 over all of it that two stores share if they hold the same."""

    accounts: int
    messages: int
    pairs: int
    digest: str


async def move(
    source: Store, target: Store, *, retire: Callable[[], Awaitable[None]], now_ms: int, tell: Callable[[str], None]
) -> Holdings:
    """Make *target* hold what *source* holds, *retire* the old store in between, and return what was compared.

    Nothing may change either meanwhile. Raises ConfigInvalid: *target* belongs to another relay. Raises
    RelayUnavailable: a store did not take or give something now. Raises StoreDamaged: in the end they differed.
    """
    await _adopt(source, target)
    tell("copying accounts and mail")
    await _each(source, lambda name: _copy(source, target, name, now_ms))
    await _copy_invites(source, target, now_ms)
    await retire()
    tell("the old store is retired; copying one-time pairs")
    await _each(source, lambda name: _copy_pairs(source, target, name))
    tell("reading both stores again, to compare them")
    ours = await holdings_of(source, now_ms=now_ms)
    theirs = await holdings_of(target, now_ms=now_ms)
    if ours != theirs:
        raise StoreDamaged(
            f"the stores differ: {_told(ours)} here, {_told(theirs)} there",
            hint="let no relay run on either, and run the same command again",
        )
    return ours


async def holdings_of(store: Store, *, now_ms: int) -> Holdings:
    """Read all of *store*; mail that ends within an hour of *now_ms* is left out."""
    whole, messages, pairs, accounts = hashlib.sha256(), 0, 0, 0
    whole.update(_encode([astuple(each) for each in await _invites(store, now_ms)]))
    async for names in _pages(store):
        for digest, mail, stocked in await asyncio.gather(*(_digest(store, name, now_ms) for name in names)):
            whole.update(digest)
            accounts, messages, pairs = accounts + 1, messages + mail, pairs + stocked
    return Holdings(accounts, messages, pairs, whole.hexdigest())


def _told(held: Holdings) -> str:
    return f"{held.accounts} accounts, {held.messages} messages, {held.pairs} pairs (sha256 {held.digest[:16]})"


async def _adopt(source: Store, target: Store) -> None:
    if target.relay_id == source.relay_id:
        return
    if await target.directory.names(after="", limit=1):
        raise ConfigInvalid(
            "the store to move to belongs to another relay, which has accounts", hint="name an empty one with --to"
        )
    await target.contents.adopt(source.relay_id)


async def _pages(store: Store) -> AsyncIterator[list[Username]]:
    after = ""
    while names := await store.directory.names(after=after, limit=_PAGE):
        yield names
        after = names[-1]


async def _each(store: Store, work: Callable[[Username], Awaitable[None]]) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(name: Username) -> None:
        async with slots:
            await work(name)

    async for names in _pages(store):
        await asyncio.gather(*(one(name) for name in names))


async def _copy(source: Store, target: Store, name: Username, now_ms: int) -> None:
    account = await source.directory.find(name)
    if account is None:
        raise StoreDamaged(f"the account of {name} is listed and missing")
    await _copy_account(account, target)
    version, blob = await source.states.get(name)
    if version:
        await target.states.put(name, version, blob)
    await target.standings.set(name, await source.standings.of(name))
    await _copy_generations(source, target, name)
    await _copy_mail(source, target, name, now_ms)


async def _invites(store: Store, now_ms: int) -> list[Invite]:
    """Return the invitations that are good for longer than a comparison takes."""
    return [each for each in await store.invites.all() if not is_over(each, now_ms + _SETTLED_MS)]


async def _copy_invites(source: Store, target: Store, now_ms: int) -> None:
    """Let every invitation be good for as many registrations as it still was; one that has gone goes."""
    ours, theirs = await _invites(source, now_ms), await target.invites.all()
    for each in theirs:
        if each not in ours:
            await target.invites.revoke(each.digest)
    for each in ours:
        if each not in theirs and (refused := await target.invites.add(each, now_ms=now_ms)) is not None:
            raise RelayUnavailable(f"the store to move to refused an invitation: {refused.message}")


async def _copy_account(account: Registered, target: Store) -> None:
    there = await target.directory.register(account)
    if there.signing_key != account.signing_key:
        raise ConfigInvalid(f"the store to move to has another {account.username}", hint="name an empty one with --to")
    if there != account:
        await target.directory.publish(
            account.username, bundle=account.bundle, vault_id=account.vault_id, epoch=account.epoch
        )


async def _copy_generations(source: Store, target: Store, name: Username) -> None:
    """Let every vault subscribe as it did, the newest last; what is refused as stale has been done before."""
    newest = await source.subscriptions.current(name)
    generations = await source.contents.generations(name)
    for vault_id in sorted(generations, key=lambda vault: (newest is not None and vault == newest.vault_id, vault)):
        await target.subscriptions.activate(name, vault_id, generations[vault_id])


async def _copy_mail(source: Store, target: Store, name: Username, now_ms: int) -> None:
    there = {_attempt(entry): entry.position async for entry in all_entries(target.mailboxes, name, now_ms=now_ms)}
    waiting: list[Posting] = []
    async for entry in all_entries(source.mailboxes, name, now_ms=now_ms):
        if there.pop(_attempt(entry), None) is None:
            waiting.append(_posting(name, entry))
        if len(waiting) >= _BATCH_MESSAGES or sum(len(each.sealed) for each in waiting) >= _BATCH_BYTES:
            await _append(target, waiting)
            waiting = []
    await _append(target, waiting)
    if there:  # acknowledged at the source since an earlier run
        await target.mailboxes.ack(name, [(position, attempt[1]) for attempt, position in there.items()])


async def _append(target: Store, batch: list[Posting]) -> None:
    for answer in await target.mailboxes.append(batch) if batch else ():
        if isinstance(answer, Refusal):
            raise RelayUnavailable(f"the store to move to refused mail: {answer.message}", hint="run the command again")


async def _copy_pairs(source: Store, target: Store, name: Username) -> None:
    ours, theirs = await source.contents.stocks(name), await target.contents.stocks(name)
    if _in_order(ours) == _in_order(theirs):
        return
    account = await source.directory.find(name)
    if account is None:
        raise StoreDamaged(f"the account of {name} is listed and missing")
    if theirs:  # a publication for another vault drops every stock
        nobody = VaultId(bytes(octet ^ 0xFF for octet in account.vault_id))
        for vault_id in (nobody, account.vault_id):
            await target.directory.publish(name, bundle=account.bundle, vault_id=vault_id, epoch=account.epoch)
    for vault_id, pairs in ours.items():
        await target.pairs.stock(name, vault_id, pairs)


async def _digest(store: Store, name: Username, now_ms: int) -> tuple[bytes, int, int]:
    """Return a digest of all that *store* holds of one account, the messages and the pairs that are in it."""
    account, newest = await store.directory.find(name), await store.subscriptions.current(name)
    stocks = _in_order(await store.contents.stocks(name))
    record = (
        None if account is None else astuple(account),
        await store.states.get(name),
        (await store.standings.of(name)).value,
        sorted((await store.contents.generations(name)).items()),
        newest and newest.vault_id,
        stocks,
    )
    whole, messages = hashlib.sha256(_encode(record)), 0
    async for entry in all_entries(store.mailboxes, name, now_ms=now_ms):
        if entry.expires_at == 0 or entry.expires_at > now_ms + _SETTLED_MS:
            whole.update(_encode(astuple(replace(entry, position=Position(0)))))
            messages += 1
    return whole.digest(), messages, sum(len(pairs) for _, pairs in stocks)


def _in_order(stocks: Mapping[VaultId, list[bytes]]) -> list[tuple[VaultId, list[bytes]]]:
    return [(vault_id, sorted(stocks[vault_id])) for vault_id in sorted(stocks) if stocks[vault_id]]


def _attempt(entry: Stored) -> tuple[Username, MessageId, int]:
    return entry.sender, entry.message_id, entry.attempt


def _posting(owner: Username, entry: Stored) -> Posting:
    return Posting(
        owner=owner,
        sender=entry.sender,
        message_id=entry.message_id,
        attempt=entry.attempt,
        mail_class=entry.mail_class,
        accepted_at=entry.accepted_at,
        expires_at=entry.expires_at,
        sealed=entry.sealed,
    )
