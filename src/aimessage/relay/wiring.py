"""The composition root: the only place that names a concrete store."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from aimessage.clock import Clock
from aimessage.crypto.random import Entropy
from aimessage.errors import ConfigInvalid
from aimessage.relay.config import RelayConfig
from aimessage.stores.ports import Findings, Quotas, Store

__all__ = ["config_at", "copy_snapshot", "open_store", "restore_backup", "stopped_snapshot", "verify_directory"]

# RocksDB and NATS are imported where they are used: a memory relay needs neither.


async def open_store(config: RelayConfig, *, entropy: Entropy, clock: Clock) -> Store:
    """Return the store that *config* names, open.

    Raises StoreDamaged, RelayUnavailable: it cannot be opened, or another process holds it. Raises ConfigInvalid: it is
    not as it has to be, or what it needs is not installed.
    """
    if config.nats.urls:
        return await _open_nats(config, entropy=entropy, clock=clock)
    if config.store == "memory":
        from aimessage.stores.memory import open_memory_store

        return open_memory_store(quotas=config.quotas, entropy=entropy, clock=clock)
    from aimessage.stores.rocksdb import open_rocksdb_store

    return await open_rocksdb_store(
        config.db_path, quotas=config.quotas, entropy=entropy, clock=clock, paranoid=config.paranoid_durability
    )


async def _open_nats(config: RelayConfig, *, entropy: Entropy, clock: Clock) -> Store:
    if find_spec("nats") is None:
        raise ConfigInvalid("the package nats-py is not installed", hint="pip install 'aimessage[nats]'")
    from aimessage.stores.jetstream import Access, open_jetstream_store

    settings = config.nats
    return await open_jetstream_store(
        Access(
            settings.urls,
            settings.credentials,
            settings.certificate_authority,
            settings.monitors,
            system=settings.system,
            certificate=settings.certificate,
            key=settings.key,
        ),
        quotas=config.quotas,
        replicas=settings.replicas,
        unsafe_durability=settings.unsafe_durability,
        entropy=entropy,
        clock=clock,
    )


def config_at(address: str, config: RelayConfig) -> RelayConfig:
    """Return *config* for the store at *address*, without any bound on what a mailbox holds or for how long.

    *address* is rocksdb:PATH, or a nats:// address as --store takes it. Raises ConfigInvalid: it is neither, or names
    an account.
    """
    unbounded = Quotas(messages=0, bytes=0, sender_share=0, controls=0, message_ttl_ms=0, control_ttl_ms=0)
    kind, _, rest = address.partition(":")
    if kind == "rocksdb" and rest:
        nats = replace(config.nats, urls=())
        return replace(config, store="rocksdb", db_path=Path(rest), quotas=unbounded, nats=nats)
    if kind == "nats" and rest.startswith("//") and "@" not in rest:  # a password would get into logs
        nats = replace(config.nats, urls=tuple(part.strip() for part in address.split(",")))
        return replace(config, store=address, quotas=unbounded, nats=nats)
    raise ConfigInvalid(
        f"{kind!r} with what follows is no address of a store",
        hint="name rocksdb:PATH, or nats://HOST:PORT without an account",
    )


@contextmanager
def stopped_snapshot(path: Path) -> Iterator[Path]:
    """A snapshot of a stopped relay's store, until the context ends. Raises ConfigInvalid, StoreDamaged."""
    from aimessage.stores.rocksdb import stopped_snapshot as snapshot_of

    with snapshot_of(path) as snapshot:
        yield snapshot


def copy_snapshot(snapshot: Path, target: Path) -> Findings:
    """Make the backup *target* of *snapshot*; it is read before it appears. Raises ConfigInvalid, StoreDamaged."""
    from aimessage.stores.rocksdb import copy_snapshot as copy

    return copy(snapshot, target)


def verify_directory(path: Path) -> Findings:
    """Read a backup or a stopped store, changing nothing. Raises ConfigInvalid, StoreDamaged."""
    from aimessage.stores.rocksdb import verify_directory as verify

    return verify(path)


def restore_backup(backup: Path, path: Path) -> Findings:
    """Make the store *path* from *backup*, without one-time pairs. Raises ConfigInvalid, StoreDamaged."""
    from aimessage.stores.rocksdb import restore_backup as restore

    return restore(backup, path)
