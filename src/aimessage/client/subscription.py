"""One subscription on one link: mail is committed and then acknowledged, and what we owe others is sent meanwhile."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

from aimessage.client import consumers, control, fates, inbox, state
from aimessage.client.account import Here
from aimessage.client.changes import Changes, Watch
from aimessage.client.connection import Connected
from aimessage.client.handover import Handover
from aimessage.client.link import Link
from aimessage.client.prekeys import PAIRS_LOW, is_stale, next_epoch, publish_prekeys, renew_bundle, stock_pairs
from aimessage.wire.frames import Ack, Acknowledge, CaughtUp, Deliver, PairsLow, RelayFrame, Subscribe, Subscribed
from aimessage.wire.limits import PAIRS_PER_STOCK

__all__ = ["Subscription", "renew_vault"]

_BATCH = 200
_HELD = 250  # of a relay's window of 1 000 entries and 1 MiB
_HELD_BYTES = 256 << 10
_BATCHING_SECONDS = 0.03
_UPKEEP_SECONDS = 5.0
_HOUSEKEEPING_SECONDS = 3600.0


class Subscription:
    """Built for one link; *held* are deliveries whose relay copies are still needed, by position."""

    def __init__(self, here: Here, connected: Connected, changes: Changes, handover: Handover) -> None:
        self._here = here
        self._handover = handover
        self._connected = connected
        self._changes = changes
        self._held: dict[int, Deliver] = {}
        self._pairs_left = PAIRS_PER_STOCK
        self.is_published = False

    async def begin(self, *, publish: bool) -> bool:
        """Subscribe, having become the active machine if *publish*; return False if another machine is it.

        Raises GenerationStale: this vault is a clone or was rolled back; Superseded.
        """
        here, link = self._here, self._connected.link
        if publish:
            await publish_prekeys(here, self._connected)
            self.is_published = True
        with here.vault.transaction() as vault:
            vault_id = vault.vault_id()
            if not publish and self._connected.proved.vault_id != vault_id:
                return False
            generation = vault.bump("generation")  # committed first: a copy of this vault cannot use it as well
        await link.request(lambda request_id: Subscribe(request_id, vault_id, generation), Subscribed)
        return True

    async def take_in(self, until_handled: Callable[[], bool], on_caught_up: Callable[[], None]) -> None:
        """Take in what comes, until the link is lost."""
        pushes, link = self._connected.pushes, self._connected.link
        while True:
            frames = await _next_pushes(pushes, link)
            deliveries = [frame for frame in frames if isinstance(frame, Deliver)]
            if deliveries:
                done = inbox.take_in(self._here, deliveries, self._handover, until_handled=until_handled())
                self._changes.tell()
                try:
                    await asyncio.sleep(0)  # whoever waits for it goes first
                finally:  # and may want no more
                    self._settle(deliveries, done)
            for frame in frames:
                if isinstance(frame, PairsLow):
                    self._pairs_left = min(max(frame.left, 0), PAIRS_PER_STOCK)
            if not deliveries:
                self._changes.tell()
            if any(isinstance(frame, CaughtUp) for frame in frames):
                on_caught_up()

    def _settle(self, deliveries: Sequence[Deliver], done: Sequence[bool]) -> None:
        over = [each for each, may_go in zip(deliveries, done, strict=True) if may_go]
        kept = [each for each, may_go in zip(deliveries, done, strict=True) if not may_go]
        asked = consumers.asked_among(self._here, {_key(each) for each in kept}) if kept else set()
        for each in kept:
            if _key(each) in asked and not self._has_room(each):
                over.append(each)  # the vault has it, and it is asked for: the relay's copy is only a second chance
            else:
                self._held[each.position] = each
        self._acknowledge(over)

    def _has_room(self, delivery: Deliver) -> bool:
        """Return whether one more held copy leaves most of the relay's window to other mail."""
        held = sum(len(each.sealed) for each in self._held.values())
        return len(self._held) < _HELD and held + len(delivery.sealed) <= _HELD_BYTES

    def _acknowledge(self, deliveries: Sequence[Deliver]) -> None:
        entries: dict[int, list[Ack]] = defaultdict(list)
        for each in deliveries:
            entries[each.subscription].append(Ack(each.position, each.message_id))
        for subscription, acks in entries.items():
            self._connected.link.tell(Acknowledge(subscription, acks))

    async def keep_up(self) -> None:
        """Send what we owe: receipts, requests, what others left in the outbox, our state, fresh prekeys."""
        watch = Watch(self._changes)
        await self._pay(everything=True)
        loop = asyncio.get_running_loop()
        began = looked_at = loop.time()
        while True:
            if loop.time() - looked_at > _HOUSEKEEPING_SECONDS:
                looked_at = loop.time()
                fates.expire(self._here, self._connected.relay_ms + int((looked_at - began) * 1000))
            await watch.next(_UPKEEP_SECONDS)
            await asyncio.sleep(_BATCHING_SECONDS)  # one receipt for many messages
            await self._pay(everything=False)

    async def _pay(self, *, everything: bool) -> None:
        here, link = self._here, self._connected.link
        if self._held:
            settled = consumers.settled_among(here, {_key(each) for each in self._held.values()})
            over = [each for each in self._held.values() if _key(each) in settled]
            self._acknowledge([self._held.pop(each.position) for each in over])
            consumers.forget_held(here, settled)
        consumers.release_what_is_due(here)
        if everything or control.is_owed(here):
            await control.flush(here, link)
        if self.is_published:
            await state.store_state(here, self._connected)
            if is_stale(here):
                await renew_bundle(here, link)
            if self._pairs_left < PAIRS_LOW:
                wanted, self._pairs_left = PAIRS_PER_STOCK - self._pairs_left, PAIRS_PER_STOCK
                await stock_pairs(here, link, wanted)


def _key(delivery: Deliver) -> tuple[str, bytes]:
    return delivery.sender, delivery.message_id


async def _next_pushes(pushes: "asyncio.Queue[RelayFrame]", link: Link) -> list[RelayFrame]:
    """Return everything that has come, at least one frame. Raises what the link was lost to."""
    if pushes.empty():
        getter = asyncio.ensure_future(pushes.get())
        try:
            await asyncio.wait({getter, link.lost}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
            if not getter.done():
                raise link.lost.result()
            frames = [getter.result()]
        finally:
            getter.cancel()
    else:
        frames = [pushes.get_nowait()]
    while len(frames) < _BATCH and not pushes.empty():
        frames.append(pushes.get_nowait())
    return frames


def renew_vault(here: Here) -> None:
    """Go on as another vault: no counter and no session that a copy of this one may use is used again."""
    with here.vault.transaction() as vault:
        vault.save_meta("vault_id", here.entropy(16))
        vault.save_counter("generation", 0)
        vault.save_counter("published_at", 0)
        vault.save_counter("renewed_at", here.now_ms)
        vault.save_counter("restored", 1)  # what came in the hours that this vault lacks is no gap of the relay's
        vault.save_counter("epoch", next_epoch(here, vault))  # sessions that we start now are above the copy's
        for name in vault.peer_names():
            peer = vault.peer(here.address(name))
            peer.conversation = peer.conversation.retire()
            peer.sent_sequence = 0
            vault.save_peer(peer)
        vault.run("DELETE FROM heard")
