"""The operator's commands beside the relay: backup, verify, restore. They work whether it runs or not."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from aimessage.errors import AimessageError, InvalidInput, RelayUnavailable, StoreDamaged
from aimessage.relay.admin import OperatorLine, dial
from aimessage.relay.config import RelayConfig, load_config
from aimessage.relay.log import complain
from aimessage.relay.wiring import copy_snapshot, restore_backup, stopped_snapshot, verify_directory
from aimessage.stores.ports import Findings

__all__ = ["COMMANDS", "Flags", "command_for", "db_path_option", "exit_code", "load_or_exit", "snapshot_name"]

_SHOWN = 50
_AFTER_RESTORE = (
    "mail that was accepted after the backup is not in it; its senders were told that it was accepted",
    "mail that was delivered after the backup may be delivered again; agents show it once",
    "names that were registered after the backup are free again; their agents have to register anew",
    "all one-time pairs were dropped, so that none is served twice; agents stock new ones when they connect",
)

Flags = dict[str, str | None]
_CommandT = TypeVar("_CommandT", bound=Callable[..., object])


def db_path_option(command: _CommandT) -> _CommandT:
    """Give *command* the relay's directory."""
    return click.option("--db-path", default=None, help="the relay's directory, as it was started with")(command)


def exit_code(error: AimessageError) -> int:
    """Return what a command of the relay exits with."""
    return 2 if isinstance(error, InvalidInput) else 1


def load_or_exit(flags: Mapping[str, str | None]) -> RelayConfig:
    """Return the configuration; end the process with a sentence if there is none."""
    try:
        return load_config(flags, os.environ)
    except AimessageError as error:
        complain(error, flags.get("log_format") or os.environ.get("LOG_FORMAT", ""))
        sys.exit(2)


@contextmanager
def command_for(flags: Flags, db_path: str | None) -> Iterator[RelayConfig]:
    """The configuration for one command, and the boundary that turns its error into a sentence and an exit code."""
    config = load_or_exit({**flags, "db_path": db_path} if db_path else flags)
    try:
        yield config
    except AimessageError as error:
        complain(error, config.log_format)
        sys.exit(exit_code(error))


@contextmanager
def _snapshot(db_path: Path) -> Iterator[Path]:
    """A snapshot of the store, by its relay if one runs."""
    line = dial(db_path)
    if line is None:
        with stopped_snapshot(db_path) as snapshot:
            yield snapshot
        return
    with line:
        snapshot = db_path / snapshot_name(line)
        if not snapshot.is_dir():
            raise RelayUnavailable(f"the snapshot {snapshot.name} of the relay is not in {db_path}")
        yield snapshot


def snapshot_name(line: OperatorLine) -> str:
    """Have the relay behind *line* make a snapshot, which lasts as long as the line; return its name beside the store.

    Raises RelayUnavailable.
    """
    name = str(line.ask("snapshot")["name"])
    if Path(name).name != name:
        raise RelayUnavailable(f"the relay names its snapshot {name}, which is no name")
    return name


def _runs_on(db_path: Path) -> bool:
    line = dial(db_path)
    if line is not None:
        line.close()
    return line is not None


@click.command("backup")
@click.argument("directory")
@db_path_option
@click.pass_obj
def _backup(flags: Flags, directory: str, db_path: str | None) -> None:
    """Copy the store into DIRECTORY, which must not exist or be empty; the relay may run.

    Everything that was accepted before this command started is in it. The copy is read before it appears.
    """
    with command_for(flags, db_path) as config, _snapshot(config.db_path) as snapshot:
        found = copy_snapshot(snapshot, Path(directory))
        _report(config, "backup complete", directory, found)


@click.command("verify")
@click.argument("directory", required=False)
@db_path_option
@click.pass_obj
def _verify(flags: Flags, directory: str | None, db_path: str | None) -> None:
    """Read all of a backup in DIRECTORY, or of the relay's own store, running or not; change nothing.

    Exits with 1 and names every damaged mailbox if there is one.
    """
    with command_for(flags, db_path) as config:
        place = directory or str(config.db_path)
        if directory is None and _runs_on(config.db_path):
            with _snapshot(config.db_path) as snapshot:
                found = verify_directory(snapshot)
        else:
            found = verify_directory(Path(place))
        _report(config, "damaged" if found.damages else "verified", place, found)
        if found.damages:
            whose = ", ".join(found.damaged) if found.damaged else "no mailbox can be named"
            raise StoreDamaged(f"{place} is damaged: {whose}")


@click.command("restore")
@click.argument("backup")
@db_path_option
@click.pass_obj
def _restore(flags: Flags, backup: str, db_path: str | None) -> None:
    """Make the relay's store from BACKUP; the relay must not run, and its directory must be absent or empty."""
    with command_for(flags, db_path) as config:
        found = restore_backup(Path(backup), config.db_path)
        _report(config, "restored", str(config.db_path), found)
        for sentence in _AFTER_RESTORE:
            line = {"event": "note", "level": "warning", "message": sentence}
            click.echo(json.dumps(line) if config.log_format == "json" else f"note: {sentence}", err=True)


COMMANDS: tuple[click.Command, ...] = (_backup, _verify, _restore)


def _report(config: RelayConfig, event: str, place: str, found: Findings) -> None:
    if config.log_format == "json":
        counts = {"mailboxes": found.mailboxes, "messages": found.messages, "accounts": found.accounts}
        damage = {"damaged": list(found.damaged), "damages": list(found.damages[:_SHOWN])}
        click.echo(json.dumps({"event": event, "path": place, **counts, **damage}))
        return
    held = f"{found.mailboxes} mailboxes, {found.messages} messages, {found.accounts} accounts"
    click.echo(f"{event}: {place} ({held})")
    for sentence in found.damages[:_SHOWN]:
        click.echo(f"damage: {sentence}")
