"""The operator's commands that ask a running relay: its figures, and its accounts."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import click

from aimessage.errors import BadValue, RelayUnavailable
from aimessage.relay.admin import OperatorLine, dial
from aimessage.relay.config import RelayConfig
from aimessage.relay.operate import Flags, command_for, db_path_option
from aimessage.stores.ports import Standing

__all__ = ["ASKING", "asking"]

_Row = Mapping[str, object]
_TOLD = {
    Standing.GOOD: "{} may log in again",
    Standing.BANNED: "{} is banned: it is not connected, and cannot log in",
    Standing.REMOVED: "{} is removed: its mail is deleted, and nobody gets the name",
}


@contextmanager
def asking(flags: Flags, db_path: str | None) -> Iterator[tuple[RelayConfig, OperatorLine]]:
    """A line to the relay that runs, for one command, and the boundary that `command_for` is."""
    with command_for(flags, db_path) as config:
        line = dial(config.db_path)
        if line is None:
            raise RelayUnavailable(
                f"no relay runs on {config.db_path}", hint="start it, or name its directory with --db-path"
            )
        with line:
            yield config, line


@click.command("stats")
@click.option("--watch", is_flag=True, help="ask again and again, until interrupted")
@click.option("--every", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="seconds, with --watch")
@db_path_option
@click.pass_obj
def _stats(flags: Flags, watch: bool, every: float, db_path: str | None) -> None:
    """Print what the running relay has done since it started and how it is now."""
    with suppress(KeyboardInterrupt), asking(flags, db_path) as (config, line):
        while True:
            figures = line.ask("stats")
            click.echo(json.dumps(figures) if config.log_format == "json" else "\n".join(_told(figures)))
            if not watch:
                return
            time.sleep(every)
            if config.log_format != "json":
                click.echo()


def _told(figures: Mapping[str, object]) -> Iterator[str]:
    """Yield one line for each figure; what is counted by a word has its words behind it."""
    for name, value in figures.items():
        words = value if isinstance(value, dict) else {}
        told = ", ".join(f"{word.replace('_', ' ')} {_plain(found)}" for word, found in words.items())
        if value is not None:
            yield f"{name.replace('_', ' ')}: {told or ('none' if isinstance(value, dict) else _plain(value))}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "(" + (", ".join(f"{word} {count}" for word, count in value.items()) or "none") + ")"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


@click.group("users")
def _users() -> None:
    """The accounts of a running relay."""


@_users.command("list")
@db_path_option
@click.pass_obj
def _list(flags: Flags, db_path: str | None) -> None:
    """Print every account, with its standing and what its mailbox holds."""
    with asking(flags, db_path) as (config, line):
        for row in _rows(line):
            if config.log_format == "json":
                click.echo(json.dumps(row))
            else:
                online = "online" if row["online"] else "offline"
                held = f"{row['messages']} messages, {row['bytes']} bytes"
                click.echo(f"{row['username']:<32}  {row['standing']:<7}  {online:<7}  {held}")


def _rows(line: OperatorLine) -> Iterator[_Row]:
    after, more = "", True
    while more:
        answer = line.ask("users", after=after)
        rows, more = answer["users"], bool(answer["more"])
        if not isinstance(rows, list):
            raise RelayUnavailable("the relay's answer is not a list")
        for row in rows:
            after = str(row["username"])
            yield row


@_users.command("ban")
@click.argument("username")
@db_path_option
@click.pass_obj
def _ban(flags: Flags, username: str, db_path: str | None) -> None:
    """Cut USERNAME off and let it log in no more; its name and its mail are kept."""
    _decide(flags, db_path, username, Standing.BANNED)


@_users.command("unban")
@click.argument("username")
@db_path_option
@click.pass_obj
def _unban(flags: Flags, username: str, db_path: str | None) -> None:
    """Let USERNAME log in again."""
    _decide(flags, db_path, username, Standing.GOOD)


@_users.command("remove")
@click.argument("username")
@click.option("--yes", is_flag=True, help="do it; there is no way back")
@db_path_option
@click.pass_obj
def _remove(flags: Flags, username: str, yes: bool, db_path: str | None) -> None:
    """Remove USERNAME for good: its mail and its pairs are deleted, and nobody gets the name, not even itself."""
    with command_for(flags, db_path):
        if not yes:
            raise BadValue("removing an account deletes its mail, for good", hint="say so with --yes, or use users ban")
    _decide(flags, db_path, username, Standing.REMOVED)


def _decide(flags: Flags, db_path: str | None, username: str, standing: Standing) -> None:
    with asking(flags, db_path) as (config, line):
        before = line.ask("standing", username=username, standing=standing.value)["before"]
        if config.log_format == "json":
            click.echo(json.dumps({"username": username, "standing": standing.value, "before": before}))
        else:
            click.echo(_TOLD[standing].format(username))


ASKING: tuple[click.Command, ...] = (_stats, _users)
