"""The command that moves a relay's store to another engine: restartable, compared by count and hash at the end."""

import asyncio
import json
from dataclasses import asdict, replace

import click

from aimessage.clock import SystemClock, milliseconds
from aimessage.crypto.random import system_entropy
from aimessage.errors import ConfigInvalid
from aimessage.relay.admin import OperatorLine, dial
from aimessage.relay.config import RelayConfig
from aimessage.relay.operate import Flags, command_for, snapshot_name
from aimessage.relay.wiring import config_at, open_store
from aimessage.stores.moving import Holdings, move

__all__ = ["MIGRATING"]


@click.command("migrate")
@click.option("--from", "origin", required=True, metavar="ADDRESS", help="the store to leave, as rocksdb:PATH")
@click.option("--to", "target", required=True, metavar="ADDRESS", help="the store to move to, empty or half filled")
@click.pass_obj
def _migrate(flags: Flags, origin: str, target: str) -> None:
    """Move accounts, mail, states, standings and one-time pairs to another store, which takes over the relay's id.

    A relay that runs on the old store stands still meanwhile: mail goes out and is acknowledged, everything else is
    told to come back. A run that was interrupted is continued by the same command; until its last part, the relay then
    goes on as before. From its last part on the old store is retired: its relay takes nothing in any more, and none
    starts on it. Options for NATS stand before the command's name.
    """
    with command_for(flags, None) as config:
        held = asyncio.run(_move(config, origin, target))
        if config.log_format == "json":
            click.echo(json.dumps({"event": "migrated", "from": origin, "to": target, **asdict(held)}))
        else:
            figures = f"{held.accounts} accounts, {held.messages} messages, {held.pairs} one-time pairs"
            click.echo(f"migrated: {target} holds what {origin} held ({figures}, sha256 {held.digest})")


async def _move(config: RelayConfig, origin: str, target: str) -> Holdings:
    if origin == target:
        raise ConfigInvalid("a store cannot move to itself", hint="name another one with --to")
    leaving, entering = config_at(origin, config), config_at(target, config)
    if leaving.store == "rocksdb" and not (leaving.db_path / "CURRENT").is_file():
        raise ConfigInvalid(f"there is no store in {leaving.db_path}", hint="--from takes rocksdb:PATH, as --db-path")
    line = dial(leaving.db_path) if leaving.store == "rocksdb" else None
    if line is None:
        return await _copy(leaving, entering, target, None)
    with line:
        line.ask("still")  # until this command ends, in whatever way
        _tell("the relay stands still: mail goes out, and nothing is taken in")
        snapshot = leaving.db_path / snapshot_name(line)
        return await _copy(replace(leaving, db_path=snapshot), entering, target, line)


async def _copy(leaving: RelayConfig, entering: RelayConfig, target: str, line: OperatorLine | None) -> Holdings:
    """Copy the store of *leaving*; with *line*, it is a snapshot of the one that the relay behind *line* has."""
    clock = SystemClock()
    source = await open_store(leaving, entropy=system_entropy, clock=clock)

    async def retire() -> None:
        if line is not None:
            line.ask("retire", successor=target)  # from here on it stands still for good, also if this command dies
        await source.contents.retire(target)

    try:
        successor = await source.contents.successor()
        if successor not in ("", target):
            raise ConfigInvalid(f"this store has moved to {successor} already", hint="continue with that one as --to")
        store = await open_store(entering, entropy=system_entropy, clock=clock)
        try:
            return await move(source, store, retire=retire, now_ms=milliseconds(clock.now()), tell=_tell)
        finally:
            await store.close()
    finally:
        await source.close()


def _tell(sentence: str) -> None:
    click.echo(sentence, err=True)


MIGRATING: tuple[click.Command, ...] = (_migrate,)
