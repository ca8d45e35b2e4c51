"""Opening: connect, confirm durability, make or check the streams, learn the store's id, and start what runs beside."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import nats.errors

from aimessage.clock import Clock
from aimessage.crypto.random import Entropy, system_entropy
from aimessage.errors import ConfigInvalid, RelayUnavailable, StoreDamaged, Unsupported
from aimessage.stores.jetstream.access import Access, connect
from aimessage.stores.jetstream.accounts import JetStreamStandings, JetStreamStates, JetStreamSubscriptions
from aimessage.stores.jetstream.bus import Bus
from aimessage.stores.jetstream.contents import JetStreamContents
from aimessage.stores.jetstream.directory import JetStreamDirectory, JetStreamPairs
from aimessage.stores.jetstream.durability import require_durability
from aimessage.stores.jetstream.invites import JetStreamInvites
from aimessage.stores.jetstream.layout import BUDGETS, HERE, PARTITIONS, RECORDS, record
from aimessage.stores.jetstream.mailboxes import JetStreamMailboxes
from aimessage.stores.jetstream.records import Change, Records
from aimessage.stores.jetstream.shared import JetStreamBudgets, JetStreamPresence
from aimessage.stores.jetstream.streams import ensure_streams, stream_names
from aimessage.stores.jetstream.wakes import Wakes
from aimessage.stores.ports import (
    Budgets,
    Changed,
    Contents,
    Directory,
    Invites,
    Mailboxes,
    Pairs,
    Presence,
    Quotas,
    Refusal,
    Standings,
    States,
    Subscriptions,
)
from aimessage.types import RelayId, Username

__all__ = ["JetStreamStore", "open_jetstream_store"]

_SCHEMA = 1
_LEADERS_SECONDS = 30.0  # after all nodes were started anew, elections take 5 to 10
_PAUSE_SECONDS = 0.5
_ResultT = TypeVar("_ResultT")


class _Arrivals(JetStreamPresence):
    """Presence that also follows whoever has a link here."""

    def __init__(self, bus: Bus, node: str, clock: Clock, wakes: Wakes) -> None:
        super().__init__(bus, node, clock)
        self._wakes = wakes

    async def arrive(self, owner: Username) -> None:
        """One more link of *owner* is open here."""
        await super().arrive(owner)
        await self._wakes.follow(owner)

    async def leave(self, owner: Username) -> None:
        """One link fewer."""
        await super().leave(owner)
        await self._wakes.unfollow(owner)


class JetStreamStore:
    """All ports on one JetStream account; belongs to the event loop that opened it."""

    def __init__(
        self, bus: Bus, quotas: Quotas, relay_id: RelayId, partitions: int, clock: Clock, entropy: Entropy
    ) -> None:
        node = entropy(8).hex()
        self.bus = bus
        self._relay_id = relay_id
        self._partitions = partitions
        self._wakes = Wakes(bus, node)
        records = Records(bus)
        pairs = JetStreamPairs(bus, entropy)
        presence = _Arrivals(bus, node, clock, self._wakes)
        self._mailboxes = JetStreamMailboxes(bus, quotas, partitions, clock, self._wakes.tell_mail)
        self.mailboxes: Mailboxes = self._mailboxes
        self.pairs: Pairs = pairs
        directory = JetStreamDirectory(records, pairs, clock)
        self.directory: Directory = directory
        self.invites: Invites = JetStreamInvites(records, directory)
        self.subscriptions: Subscriptions = JetStreamSubscriptions(records, self._wakes.tell_subscriptions)
        self.states: States = JetStreamStates(records)
        self.standings: Standings = JetStreamStandings(records)
        self.presence: Presence = presence
        self.budgets: Budgets = JetStreamBudgets(bus, clock)
        self._contents = JetStreamContents(bus, records, relay_id)
        self.contents: Contents = self._contents
        runs = (self._wakes.run(), self._wakes.sweep(), presence.run())
        self._beside = [asyncio.create_task(work) for work in runs]  # owned: `close` ends them

    @property
    def relay_id(self) -> RelayId:
        """The random id made with the store, or the one that it has adopted."""
        return self._contents.relay_id

    async def check_writable(self) -> Refusal | None:
        """Return why the store cannot take writes now, or None: each stream on disk has a leader."""
        try:
            infos = await asyncio.gather(*map(self.bus.info, stream_names(self._partitions)))
        except RelayUnavailable as error:
            return Refusal("relay_unavailable", error.message, 2.0)
        for info in infos:
            cluster = info.get("cluster")
            if isinstance(cluster, dict) and not cluster.get("leader"):
                return Refusal("relay_unavailable", "a stream of NATS has no leader", 2.0)
        return None

    def observe_commits(self, tell: Callable[[float], None]) -> None:
        """From now on *tell* how many seconds each append took, until the last of its streams had confirmed it."""
        self._mailboxes.on_commit = tell

    def observe_changes(self, mail: Changed, subscriptions: Changed) -> None:
        """From now on tell whose mailbox, and whose subscription, another relay may have changed."""
        self._wakes.hear_mail, self._wakes.hear_subscriptions = mail, subscriptions

    async def settled(self) -> None:
        """Return when NATS has taken all that was said to it until now. Raises RelayUnavailable."""
        await self.bus.settle()

    def snapshot(self) -> AbstractAsyncContextManager[Path]:
        """Raise Unsupported: the files are those of NATS."""
        raise Unsupported("a relay on NATS keeps no files", hint="back the streams up: nats account backup")

    async def close(self) -> None:
        """Finish what is under way, then leave NATS. Nothing may be called after it."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        try:
            async with asyncio.timeout(5.0):
                await self.bus.client.close()
        except (TimeoutError, nats.errors.Error, OSError):
            return


async def open_jetstream_store(
    access: Access,
    *,
    quotas: Quotas | None = None,
    replicas: int = 1,
    unsafe_durability: bool = False,
    entropy: Entropy = system_entropy,
    clock: Clock,
) -> JetStreamStore:
    """Open or make the store in the JetStream account that *access* reaches, its streams in *replicas* copies.

    Raises ConfigInvalid: what is there is not as it has to be, or (unless *unsafe_durability*) it cannot be confirmed
    that every node syncs what it acknowledges. Raises RelayUnavailable: NATS does not answer.
    """
    bus = Bus(await connect(access))
    try:
        relay_id, partitions = await _patiently(lambda: _prepared(bus, replicas, entropy))
        if not unsafe_durability:
            await _patiently(lambda: require_durability(bus, access, stream_names(partitions), replicas=replicas))
        return JetStreamStore(bus, quotas or Quotas(), relay_id, partitions, clock, entropy)
    except BaseException:
        await asyncio.shield(bus.client.close())
        raise


async def _patiently(work: Callable[[], Awaitable[_ResultT]]) -> _ResultT:
    """Return what *work* does, done again for a while: nodes that have just started answer when they have leaders."""
    until = asyncio.get_running_loop().time() + _LEADERS_SECONDS
    while True:
        try:
            return await work()
        except RelayUnavailable:
            if asyncio.get_running_loop().time() > until:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def _prepared(bus: Bus, replicas: int, entropy: Entropy) -> tuple[RelayId, int]:
    """Make the streams that are missing; return the store's id and its partitions. Done twice, it is as done once."""
    await ensure_streams(bus, [RECORDS], replicas=replicas)
    relay_id, partitions = await _identify(Records(bus), entropy)
    await ensure_streams(bus, [*stream_names(partitions), HERE, BUDGETS], replicas=replicas)
    return relay_id, partitions


async def _identify(records: Records, entropy: Entropy) -> tuple[RelayId, int]:
    subject = record("store")
    kept = await records.get(subject)
    if not kept.revision:
        fresh = {"schema": _SCHEMA, "relay_id": entropy(16).hex(), "partitions": PARTITIONS}
        await records.put([Change(subject, json.dumps(fresh).encode(), 0)])  # or another relay was first
        kept = await records.get(subject)
    try:
        facts = json.loads(kept.data)
        schema, relay_id, partitions = int(facts["schema"]), bytes.fromhex(facts["relay_id"]), int(facts["partitions"])
    except (ValueError, KeyError, TypeError):
        raise StoreDamaged("the record of the store in NATS does not decode") from None
    if schema > _SCHEMA or partitions != PARTITIONS:
        raise ConfigInvalid(
            f"the store in NATS is of schema {schema} with {partitions} partitions; this relay knows schema"
            f" {_SCHEMA} with {PARTITIONS}",
            hint="upgrade this relay and start again",
        )
    return RelayId(relay_id), partitions
