"""The small records of an account: who receives its mail, its sealed state, and the operator's word about it."""

import asyncio

from aimessage.errors import StoreDamaged
from aimessage.octets import u64
from aimessage.stores.ports import Refusal, Standing, Subscription
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.writer import Batch, Writer
from aimessage.types import Username, VaultId

__all__ = ["RocksStandings", "RocksStates", "RocksSubscriptions"]


def _load(record: bytes) -> Subscription:
    number, generation = int.from_bytes(record[:8], "big"), int.from_bytes(record[8:16], "big")
    return Subscription(number, VaultId(record[16:]), generation)


class RocksSubscriptions:
    """`ports.Subscriptions` on RocksDB; a vault's highest generation is kept for ever."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    async def activate(self, owner: Username, vault_id: VaultId, generation: int) -> Subscription | Refusal:
        """Make a new subscription with the next number, or refuse. Raises RelayUnavailable."""

        def supersede(batch: Batch) -> Subscription | Refusal:
            seen = batch.get(keys.generation(owner, vault_id))
            if generation <= (-1 if seen is None else int.from_bytes(seen, "big")):
                return Refusal("generation_stale", "this vault has subscribed with this generation before")
            newest = batch.get(keys.subscription(owner))
            number = _load(newest).number + 1 if newest is not None else 1
            batch.put(keys.generation(owner, vault_id), u64(generation))
            batch.put(keys.subscription(owner), u64(number) + u64(generation) + vault_id)
            return Subscription(number, vault_id, generation)

        return await self._writer.run(supersede, grows=False)

    async def current(self, owner: Username) -> Subscription | None:
        """Return the newest subscription."""
        record = self._engine.get(keys.subscription(owner))
        return None if record is None else _load(record)


class RocksStates:
    """`ports.States` on RocksDB."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    async def put(self, owner: Username, version: int, blob: bytes) -> bool:
        """Keep *blob* if *version* is higher than the kept one; return whether it was. Raises RelayUnavailable."""

        def keep(batch: Batch) -> bool:
            kept = batch.get(keys.state(owner)) or u64(0)
            if version <= int.from_bytes(kept[:8], "big"):
                return False
            batch.put(keys.state(owner), u64(version) + blob)
            return True

        return await self._writer.run(keep, grows=True)

    async def get(self, owner: Username) -> tuple[int, bytes]:
        """Return the kept version and blob; (0, b"") if there is none."""
        kept = self._engine.get(keys.state(owner)) or u64(0)
        return int.from_bytes(kept[:8], "big"), kept[8:]


class RocksStandings:
    """`ports.Standings` on RocksDB."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    async def set(self, username: Username, standing: Standing) -> None:
        """Decide; also while the disk is nearly full."""

        def decide(batch: Batch) -> None:
            if standing is Standing.GOOD:
                batch.delete(keys.standing(username))
            else:
                batch.put(keys.standing(username), standing.value.encode())

        await self._writer.run(decide, grows=False)

    async def of(self, username: Username) -> Standing:
        """Return what was decided about one account. Raises StoreDamaged."""
        octets = self._engine.get(keys.standing(username))
        return Standing.GOOD if octets is None else _standing(username, octets)

    async def all(self) -> dict[Username, Standing]:
        """Return every account that is not in good standing. Raises StoreDamaged."""
        prefix = keys.standing("")
        found = await asyncio.to_thread(lambda: list(self._engine.scan(prefix, keys.after_prefix(prefix))))
        owners = {Username(key.removeprefix(prefix).decode()): octets for key, octets in found}
        return {owner: _standing(owner, octets) for owner, octets in owners.items()}


def _standing(username: Username, octets: bytes) -> Standing:
    try:
        return Standing(octets.decode())
    except ValueError:
        raise StoreDamaged(f"the standing of {username} does not decode") from None
