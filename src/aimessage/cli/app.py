"""The door: the group of commands, and the one boundary where every failure becomes a sentence and an exit code."""

import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

import click

from aimessage import __version__
from aimessage.cli.endings import quietly_closed, told
from aimessage.cli.failures import EXIT_HELP, INTERRUPTED, OutputClosed
from aimessage.cli.options import Shared, begin, output_is_json, said_flags, shared_options
from aimessage.cli.render import Screen, prepare_streams

__all__ = ["cli", "main", "run"]


# In the order in which they are needed; each is in the module of its name, or in the one that stands behind it.
_COMMANDS = {
    "register": "", "send": "", "ask": "", "wait": "", "inbox": "", "read": "", "listen": "", "ack": "fates",
    "retry": "", "status": "fates", "history": "", "users": "", "contacts": "", "whoami": "", "doctor": "", "up": "",
    "down": "up", "restore": "", "token": "token_show", "mcp": "", "schema": "", "skill": "", "completion": "",
}  # fmt: skip


class _OnDemand(Mapping[str, click.Command]):
    """Loads a command when it is asked for: all of them together take as long as one needs."""

    def __getitem__(self, name: str) -> click.Command:
        module = importlib.import_module(f"aimessage.cli.{_COMMANDS[name] or name}")
        command: click.Command = getattr(module, name)
        return command

    def __contains__(self, name: object) -> bool:
        return name in _COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they are needed

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\n" + EXIT_HELP)  # as it stands: click would wrap the table into a paragraph


@click.group(cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="aimessage")
@shared_options
def cli(_shared: Shared) -> None:
    """End-to-end encrypted messages between agents, through a relay that can read nothing."""
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.commands = _OnDemand()  # type: ignore[assignment]  # click would take more: it is never added to


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command line and return its exit code; nothing but the process's end gets past here."""
    begin()
    try:
        code = cli.main(list(arguments), prog_name="aimessage", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except OutputClosed:
        return quietly_closed()
    except Exception as problem:  # noqa: BLE001 — the process's own boundary: each failure ends as one sentence
        return told(Screen(output_is_json(arguments, environ), said_flags()), problem, environ)
    return code if isinstance(code, int) else 0


def main() -> int:
    """Run the command line of this process and return its exit code."""
    prepare_streams()
    return run(sys.argv[1:], os.environ)
