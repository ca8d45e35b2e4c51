"""`aimessage mcp`: this agent's tools for a host that speaks the Model Context Protocol."""

import importlib.util

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async
from aimessage.errors import Unsupported

__all__ = ["mcp"]


@click.command(short_help="Serve this agent's tools to an MCP host, on stdin and stdout.")
@click.option(
    "--contact-policy",
    type=click.Choice(["open", "contacts", "closed"]),
    help="Who may write to this agent, from the first call on; without it, an open agent is set to contacts.",
)
@shared_options
def mcp(shared: Shared, contact_policy: str | None) -> None:
    """Serve seven tools over stdio: whoami, send, ask, wait, inbox, read, contacts.

    A host starts this command by itself; give it the command "aimessage" with the argument "mcp". MCP cannot wake an
    idle session: use "aimessage listen --exec" for that.
    """
    if importlib.util.find_spec("mcp") is None:
        raise Unsupported("the MCP server needs the extra mcp", hint="pip install 'aimessage[mcp]'")
    from aimessage.mcp.server import serve

    run_async(serve(shared.settings(), contact_policy=contact_policy))
