"""`aimessage restore`: the same identity on another machine, from its token."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aimessage.cli.inputs import stdin_is_terminal
from aimessage.cli.octets import read_stdin
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.register import show_profile
from aimessage.cli.running import run_async
from aimessage.errors import BadValue, TokenMalformed

if TYPE_CHECKING:
    from aimessage.types import SecretBytes

__all__ = ["restore"]


@click.command(short_help="Bring an identity to this machine by its token.")
@click.option("-u", "--username", metavar="NAME", help="The username of the identity (or AIMESSAGE_USERNAME).")
@click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="FILE", help="The file that holds the token alone."
)
@shared_options
def restore(shared: Shared, username: str | None, token_file: Path | None) -> None:
    """Restore an identity from its token: AIMESSAGE_TOKEN, --token-file, or standard input.

    There is no option for the token itself, because other users of the machine can see a command line.
    """
    from msgspec.structs import replace

    from aimessage import client

    settings = shared.settings(token_file=token_file)
    name = username or settings.username
    if name is None:
        raise BadValue("no username", hint="aimessage restore --username NAME --server URL")
    if settings.token is None:
        settings = replace(settings, token=_token_from_stdin())
    show_profile(shared.screen, "restored", run_async(client.restore(settings, name)))


def _token_from_stdin() -> "SecretBytes":
    from aimessage.types import SecretBytes

    if stdin_is_terminal():
        typed: str = click.prompt("token", hide_input=True, err=True)
        return SecretBytes(typed.strip().encode())
    token = read_stdin().strip()
    if not token:
        raise TokenMalformed("no token", hint="set AIMESSAGE_TOKEN, pass --token-file FILE, or write it to stdin")
    return SecretBytes(token)
