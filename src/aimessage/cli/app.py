"""The door: the group of commands, and the one boundary where every failure becomes a sentence and an exit code."""

import os
import sys
from collections.abc import Mapping, Sequence

import click

from aimessage import __version__
from aimessage.cli.ask import ask
from aimessage.cli.completion import completion
from aimessage.cli.contacts import contacts
from aimessage.cli.doctor import doctor
from aimessage.cli.endings import quietly_closed, told
from aimessage.cli.failures import EXIT_HELP, INTERRUPTED, OutputClosed
from aimessage.cli.fates import ack, status
from aimessage.cli.history import history
from aimessage.cli.inbox import inbox
from aimessage.cli.listen import listen
from aimessage.cli.mcp import mcp
from aimessage.cli.options import Shared, begin, output_is_json, said_flags, shared_options
from aimessage.cli.read import read
from aimessage.cli.register import register
from aimessage.cli.render import Screen, prepare_streams
from aimessage.cli.restore import restore
from aimessage.cli.retry import retry
from aimessage.cli.schema import schema
from aimessage.cli.send import send
from aimessage.cli.skill import skill
from aimessage.cli.token_show import token
from aimessage.cli.up import down, up
from aimessage.cli.users import users
from aimessage.cli.wait import wait
from aimessage.cli.whoami import whoami

__all__ = ["cli", "main", "run"]


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


_COMMANDS = (
    *(register, send, ask, wait, inbox, read, listen, ack, retry, status, history, users, contacts),
    *(whoami, doctor, up, down, restore, token, mcp, schema, skill, completion),
)
for _command in _COMMANDS:
    cli.add_command(_command)


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


def main() -> None:
    """Run the command line of this process and exit."""
    prepare_streams()
    sys.exit(run(sys.argv[1:], os.environ))
