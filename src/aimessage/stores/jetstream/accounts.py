"""The small records of an account: who receives its mail, its sealed state, and the operator's word about it."""

import asyncio
from collections.abc import Callable

from aimessage.errors import RelayUnavailable, StoreDamaged
from aimessage.octets import u64
from aimessage.stores.jetstream.layout import record
from aimessage.stores.jetstream.records import Change, Record, Records
from aimessage.stores.ports import Refusal, Standing, Subscription
from aimessage.types import Username, VaultId

__all__ = ["JetStreamStandings", "JetStreamStates", "JetStreamSubscriptions", "contended"]

_TRIES = 50


def contended() -> RelayUnavailable:
    """Return the error for a record that others kept changing."""
    return RelayUnavailable("others were changing the same record")


def _load(octets: bytes) -> Subscription:
    return Subscription(int.from_bytes(octets[:8], "big"), VaultId(octets[16:]), int.from_bytes(octets[8:16], "big"))


class JetStreamSubscriptions:
    """`ports.Subscriptions`: two records change together, or neither. *woken* is told of a new subscription."""

    def __init__(self, records: Records, woken: Callable[[set[Username]], None]) -> None:
        self._records = records
        self._woken = woken

    async def activate(self, owner: Username, vault_id: VaultId, generation: int) -> Subscription | Refusal:
        """Make a new subscription with the next number, or refuse. Raises RelayUnavailable."""
        newest_at, seen_at = record("subscription", owner), record("generation", owner, vault_id.hex())
        for _ in range(_TRIES):
            newest, seen = await asyncio.gather(self._records.get(newest_at), self._records.get(seen_at))
            highest = int.from_bytes(seen.data, "big") if seen.revision else -1
            if generation <= highest:
                return Refusal("generation_stale", "this vault has subscribed with this generation before")
            number = _load(newest.data).number + 1 if newest.revision else 1
            changes = [
                Change(seen_at, u64(generation), seen.revision),
                Change(newest_at, u64(number) + u64(generation) + vault_id, newest.revision),
            ]
            if await self._records.put(changes):
                self._woken({owner})
                return Subscription(number, vault_id, generation)
        raise contended()

    async def current(self, owner: Username) -> Subscription | None:
        """Return the newest subscription. Raises RelayUnavailable."""
        newest = await self._records.get(record("subscription", owner))
        return _load(newest.data) if newest.revision else None


class JetStreamStates:
    """`ports.States`."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def put(self, owner: Username, version: int, blob: bytes) -> bool:
        """Keep *blob* if *version* is higher than the kept one; return whether it was. Raises RelayUnavailable."""
        subject = record("state", owner)
        for _ in range(_TRIES):
            kept = await self._records.get(subject)
            if version <= _version(kept):
                return False
            if await self._records.put([Change(subject, u64(version) + blob, kept.revision)]):
                return True
        raise contended()

    async def get(self, owner: Username) -> tuple[int, bytes]:
        """Return the kept version and blob; (0, b"") if there is none. Raises RelayUnavailable."""
        kept = await self._records.get(record("state", owner))
        return _version(kept), kept.data[8:]


def _version(kept: Record) -> int:
    return int.from_bytes(kept.data[:8], "big")


class JetStreamStandings:
    """`ports.Standings`."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def set(self, username: Username, standing: Standing) -> None:
        """Decide. Raises RelayUnavailable."""
        subject = record("standing", username)
        if standing is not Standing.GOOD:
            await self._records.write(subject, standing.value.encode())
        elif (kept := await self._records.get(subject)).revision:
            await self._records.delete(kept)

    async def of(self, username: Username) -> Standing:
        """Return what was decided about one account. Raises StoreDamaged, RelayUnavailable."""
        kept = await self._records.get(record("standing", username))
        try:
            return Standing(kept.data.decode()) if kept.revision else Standing.GOOD
        except ValueError:
            raise StoreDamaged(f"the standing of {username} does not decode") from None

    async def all(self) -> dict[Username, Standing]:
        """Return every account that is not in good standing. Raises StoreDamaged, RelayUnavailable."""
        subjects = await self._records.names(record("standing", "*"))
        standings = {name: await self.of(name) for name in (Username(it.rpartition(".")[2]) for it in subjects)}
        return {name: standing for name, standing in standings.items() if standing is not Standing.GOOD}
