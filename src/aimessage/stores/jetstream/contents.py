"""What moves a store elsewhere: the stocks, the generations, and the store's own facts."""

import asyncio
import json
from collections.abc import Mapping

from aimessage.errors import StoreDamaged
from aimessage.stores.jetstream.accounts import contended
from aimessage.stores.jetstream.bus import Bus
from aimessage.stores.jetstream.layout import PAIRS, record
from aimessage.stores.jetstream.records import Change, Records
from aimessage.types import RelayId, Username, VaultId

__all__ = ["JetStreamContents"]

_TRIES = 50


class JetStreamContents:
    """`ports.Contents`; the relay id and the successor are facts in the one record of the store."""

    def __init__(self, bus: Bus, records: Records, relay_id: RelayId) -> None:
        self._bus = bus
        self._records = records
        self.relay_id = relay_id

    async def stocks(self, owner: Username) -> dict[VaultId, list[bytes]]:
        """Return the encoded pairs in stock, by vault; nothing is claimed. Raises RelayUnavailable."""
        subjects = await self._bus.subjects(PAIRS, f"aimessage.pair.{owner}.>")
        pairs = await asyncio.gather(*(self._bus.get(PAIRS, {"last_by_subj": subject}) for subject in subjects))
        found: dict[VaultId, list[bytes]] = {}
        for subject, pair in zip(subjects, pairs, strict=True):
            if pair is not None:
                found.setdefault(VaultId(bytes.fromhex(subject.split(".")[3])), []).append(pair.data)
        return found

    async def generations(self, owner: Username) -> dict[VaultId, int]:
        """Return the highest generation that each vault subscribed with. Raises RelayUnavailable."""
        subjects = await self._records.names(record("generation", owner, "*"))
        kept = await asyncio.gather(*map(self._records.get, subjects))
        vaults = [VaultId(bytes.fromhex(subject.rpartition(".")[2])) for subject in subjects]
        return {vault: int.from_bytes(each.data, "big") for vault, each in zip(vaults, kept, strict=True)}

    async def adopt(self, relay_id: RelayId) -> None:
        """Take over another store's relay id. Raises RelayUnavailable."""
        await self._change({"relay_id": relay_id.hex()})
        self.relay_id = relay_id

    async def retire(self, successor: str) -> None:
        """Keep every relay from starting on this store from now on. Raises RelayUnavailable."""
        await self._change({"successor": successor})

    async def successor(self) -> str:
        """Return the address of the store that has taken over, "" if none has. Raises RelayUnavailable."""
        _, facts = await self._facts()
        return str(facts.get("successor", ""))

    async def _facts(self) -> tuple[int, dict[str, object]]:
        kept = await self._records.get(record("store"))
        try:
            facts = json.loads(kept.data)
        except ValueError:
            raise StoreDamaged("the record of the store in NATS does not decode") from None
        return kept.revision, dict(facts)

    async def _change(self, changes: Mapping[str, str]) -> None:
        for _ in range(_TRIES):
            revision, facts = await self._facts()
            if await self._records.put([Change(record("store"), json.dumps({**facts, **changes}).encode(), revision)]):
                return
        raise contended()
