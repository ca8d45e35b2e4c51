"""`aimessage token show`: the token on stdout, only when it is asked for."""

import click

from aimessage.cli.options import Shared, shared_options

__all__ = ["token"]


@click.group(no_args_is_help=False, short_help="Show the token, which is this agent.")
@shared_options
def token(_shared: Shared) -> None:
    """The token: whoever holds it is this agent."""


@token.command()
@shared_options
def show(shared: Shared) -> None:
    """Print the token. Keep it as you would a private key."""
    from aimessage import client

    text = client.token_text(shared.settings())
    shared.screen.show({"v": 1, "type": "token", "token": text}, text)
