"""One batch on its way: planned by the counts, written whenever the next step has to know what became of it."""

import asyncio
from collections.abc import Sequence

from aimessage.errors import RelayUnavailable
from aimessage.stores.jetstream.appending import Planned, Writer
from aimessage.stores.jetstream.counts import FRESH_SECONDS, Counted
from aimessage.stores.jetstream.ground import Ground
from aimessage.stores.jetstream.layout import Place
from aimessage.stores.ledger import CONTROL, expiry, malformed
from aimessage.stores.ports import Posting, Receipt, Refusal
from aimessage.types import Username

__all__ = ["Append"]


class Append:
    """One batch on its way: planned by the counts, written whenever the next step has to know what became of it."""

    def __init__(self, ground: Ground, writer: Writer, batch: Sequence[Posting]) -> None:
        self._ground = ground
        self._writer = writer
        self._batch = batch
        self._answers: dict[int, Receipt | Refusal] = {}
        self._plan: dict[tuple[Username, str], Planned] = {}
        self._repeats: list[tuple[int, Planned]] = []
        self._full: dict[tuple[Username, Username], Refusal] = {}
        self._began = ground.clock.monotonic()

    async def run(self) -> list[Receipt | Refusal]:
        """Return the answers, in order."""
        await self._count({posting.owner for posting in self._batch})
        for index, posting in enumerate(self._batch):
            if index not in self._answers:
                await self._take(index, posting)
        await self._write()
        return [self._answers[index] for index in range(len(self._batch))]

    async def _count(self, owners: set[Username]) -> None:
        async def count(owner: Username) -> None:
            try:
                async with self._ground.slots:
                    await self._ground.counts.of(owner, self._began)
            except RelayUnavailable as error:
                refusal = Refusal("relay_unavailable", error.message, 2.0)
                of_owner = [index for index, posting in enumerate(self._batch) if posting.owner == owner]
                self._answers.update(dict.fromkeys(of_owner, refusal))

        await asyncio.gather(*map(count, owners))

    async def _take(self, index: int, posting: Posting) -> None:
        refusal = malformed(posting)
        if refusal is None and posting.mail_class != CONTROL:
            refusal = self._full.get((posting.owner, posting.sender))
        if refusal is not None:
            self._answers[index] = refusal
            return
        place = Place(
            posting.owner, posting.sender, posting.message_id, posting.attempt, posting.mail_class, len(posting.sealed)
        )
        if (earlier := self._plan.get((place.owner, place.key))) is not None:
            self._repeats.append((index, earlier))
            return
        try:
            await self._fit(Planned(index, posting, place, expiry(posting, self._ground.quotas), suspect=False))
        except RelayUnavailable as error:
            self._answers[index] = Refusal("relay_unavailable", error.message, 2.0)

    async def _fit(self, item: Planned) -> None:
        """Plan *item* if there is room; before it is refused, look at how things really are."""
        counted = await self._counted(item, FRESH_SECONDS)
        if item.place.key in counted.held:
            item = Planned(item.index, item.posting, item.place, item.expires_at, suspect=True)
        elif counted.ledger.refusal(item.posting, self._ground.quotas) is not None:
            await self._write()
            counted = await self._counted(item, 0.0)
            if item.place.key in counted.held:
                item = Planned(item.index, item.posting, item.place, item.expires_at, suspect=True)
            elif (refusal := counted.ledger.refusal(item.posting, self._ground.quotas)) is not None:
                self._answers[item.index] = self._full[item.place.owner, item.place.sender] = refusal
                return
        counted.add(item.place)
        self._plan[item.place.owner, item.place.key] = item

    async def _counted(self, item: Planned, fresh_seconds: float) -> Counted:
        return await self._ground.counts.of(item.place.owner, self._began, fresh_seconds=fresh_seconds)

    async def _write(self) -> None:
        """Write what is planned."""
        planned, self._plan = list(self._plan.values()), {}
        if planned:
            self._answers |= await self._writer.write(planned)
        for item in planned:
            self._written(item)
        for index, earlier in self._repeats:
            self._answers[index] = _repeated(self._answers[earlier.index])
        self._repeats.clear()
        fresh = {item.place.owner for item in planned if isinstance(self._answers[item.index], Receipt)}
        self._ground.woken(fresh)
        for owner in {item.place.owner for item in planned if item.place.mail_class == CONTROL}:
            await self._evict(owner)

    def _written(self, item: Planned) -> None:
        ground, answer = self._ground, self._answers[item.index]
        if isinstance(answer, Refusal):
            ground.counts.forget(item.place.owner)  # whether it is there or not is not known
        elif not answer.duplicate:
            stream, _ = ground.mailbox(item.place.owner)
            ground.seen.add(stream, answer.position, item.place, answer.expires_at)

    async def _evict(self, owner: Username) -> None:
        """Delete the oldest control mail above the quota; if that fails now, the next one does it."""
        ground = self._ground
        bound = ground.quotas.controls
        stream, start = ground.mailbox(owner)
        counted = ground.counts.known(owner)
        while bound and counted is not None and len(counted.ledger.controls) > bound:
            try:
                oldest = await ground.bus.get(stream, {"seq": 1, "next_by_subj": f"{start}.*.*.{CONTROL}.*"})
                if oldest is None or not await ground.remove(stream, oldest.sequence, Place.of(oldest.subject)):
                    ground.counts.forget(owner)  # another relay was there
                    return
            except RelayUnavailable:
                return


def _repeated(answer: Receipt | Refusal) -> Receipt | Refusal:
    if isinstance(answer, Refusal):
        return answer
    return Receipt(answer.position, answer.accepted_at, answer.expires_at, duplicate=True)
