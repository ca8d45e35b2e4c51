"""Opening: lock, schema version, relay id, and every mailbox counted before the first request."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aimessage.clock import Clock
from aimessage.crypto.random import Entropy, system_entropy
from aimessage.errors import ConfigInvalid, StoreDamaged
from aimessage.octets import u16
from aimessage.stores.local import LocalBudgets, LocalPresence
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
from aimessage.stores.rocksdb import keys
from aimessage.stores.rocksdb.accounts import RocksStandings, RocksStates, RocksSubscriptions
from aimessage.stores.rocksdb.contents import RocksContents
from aimessage.stores.rocksdb.directory import RocksDirectory, RocksPairs
from aimessage.stores.rocksdb.engine import Engine
from aimessage.stores.rocksdb.invites import RocksInvites
from aimessage.stores.rocksdb.mailboxes import RocksMailboxes
from aimessage.stores.rocksdb.tally import Accounts
from aimessage.stores.rocksdb.writer import Writer
from aimessage.types import RelayId

__all__ = ["SNAPSHOT", "RocksStore", "open_rocksdb_store", "require_schema"]

_SCHEMA = 2
SNAPSHOT = "snapshot"  # inside the store's directory, for hard links to its tables; RocksDB minds no other names


class RocksStore:
    """All ports on one RocksDB; belongs to the event loop that opened it."""

    def __init__(
        self, engine: Engine, accounts: Accounts, relay_id: RelayId, clock: Clock, free_bytes: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._path = engine.path
        self._copying = asyncio.Lock()
        self._accounts = accounts
        self._writer = Writer(engine, accounts.load, free_bytes)
        self.mailboxes: Mailboxes = RocksMailboxes(engine, self._writer, accounts)
        self.directory: Directory = RocksDirectory(engine, self._writer)
        self.invites: Invites = RocksInvites(engine, self._writer)
        self.pairs: Pairs = RocksPairs(engine, self._writer)
        self.subscriptions: Subscriptions = RocksSubscriptions(engine, self._writer)
        self.states: States = RocksStates(engine, self._writer)
        self.standings: Standings = RocksStandings(engine, self._writer)
        self.presence: Presence = LocalPresence()
        self.budgets: Budgets = LocalBudgets(clock)
        self._contents = RocksContents(engine, self._writer, relay_id)
        self.contents: Contents = self._contents

    @property
    def relay_id(self) -> RelayId:
        """The random id made with the store, or the one that it has adopted."""
        return self._contents.relay_id

    async def check_writable(self) -> Refusal | None:
        """Return why the store cannot take writes now, or None. Raises StoreDamaged: it did not open again."""
        # A disk that hangs would hold a thread for each one who asks.
        reason = self._writer.stall() or await asyncio.to_thread(self._writer.refusal)
        return None if reason is None else Refusal("relay_unavailable", reason, 1.0)

    def observe_commits(self, tell: Callable[[float], None]) -> None:
        """From now on *tell*, in the writer thread, how many seconds each commit took, sync included."""
        self._writer.on_commit = tell

    def observe_changes(self, mail: Changed, subscriptions: Changed) -> None:
        """Do nothing: there is no other relay."""

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Path]:
        """A directory, while the context is open, with everything in it that was acknowledged before.

        Its tables are the store's own, by another name: copy them to keep them. One at a time; another one waits.
        Raises RelayUnavailable: the disk is nearly full, or the store does not take writes.
        """
        target = self._path / SNAPSHOT
        async with self._copying:
            try:
                await self._writer.run(lambda batch: self._engine.checkpoint(target), grows=True)
                yield target
            finally:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, target, ignore_errors=True))

    async def close(self) -> None:
        """Finish what is queued, then release the directory. Nothing may be called after it."""
        await self._writer.stop()
        await asyncio.to_thread(self._engine.close)


async def open_rocksdb_store(
    path: Path,
    *,
    quotas: Quotas | None = None,
    entropy: Entropy = system_entropy,
    clock: Clock,
    free_bytes: Callable[[], int] | None = None,
    paranoid: bool = False,
) -> RocksStore:
    """Open or make the store in directory *path*; *free_bytes* overrides how the space left is measured.

    *paranoid*: a mark beside the store is synced in each commit, and a store that ends below it is refused.

    Raises ConfigInvalid: another process has it open, or a newer version wrote it. Raises StoreDamaged: it does
    not open, or a mailbox does not hold what its record says.
    """
    engine, accounts, relay_id = await asyncio.to_thread(_open, path, quotas or Quotas(), entropy, paranoid)
    return RocksStore(engine, accounts, relay_id, clock, free_bytes or engine.free_bytes)


def _open(path: Path, quotas: Quotas, entropy: Entropy, paranoid: bool) -> tuple[Engine, Accounts, RelayId]:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(
            f"the directory {path} cannot be made: {error.strerror}", hint="choose a writable one with --db-path"
        ) from None
    engine = Engine(path, paranoid=paranoid)
    try:
        shutil.rmtree(path / SNAPSHOT, ignore_errors=True)  # of a relay that was killed in the midst of a backup
        relay_id = _identify(engine, path, entropy)  # first: the layout of a newer schema means nothing to us
        return engine, Accounts(engine, quotas), relay_id
    except BaseException:
        engine.close()
        raise


def _identify(engine: Engine, path: Path, entropy: Entropy) -> RelayId:
    schema, relay_id = engine.get(keys.SCHEMA), engine.get(keys.RELAY_ID)
    if schema is None or relay_id is None:
        relay_id = entropy(16)
        engine.write({keys.SCHEMA: u16(_SCHEMA), keys.RELAY_ID: relay_id})
    else:
        require_schema(engine, path)
        if schema != u16(_SCHEMA):  # what an older version would misread is written from now on
            engine.write({keys.SCHEMA: u16(_SCHEMA)})
    return RelayId(relay_id)


def require_schema(engine: Engine, path: Path) -> None:
    """Require that this is a store of ours that this version can read. Raises StoreDamaged."""
    schema = engine.get(keys.SCHEMA)
    if schema is None or engine.get(keys.RELAY_ID) is None:
        raise StoreDamaged(f"{path} is not the store of a relay")
    if int.from_bytes(schema, "big") > _SCHEMA:
        raise StoreDamaged(
            f"the store {path} was written by a newer version of aimessage", hint="upgrade this relay and start again"
        )
