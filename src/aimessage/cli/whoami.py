"""`aimessage whoami`: which identity this command line speaks with."""

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async

__all__ = ["whoami"]


@click.command()
@shared_options
def whoami(shared: Shared) -> None:
    """Show this agent's username, relay and key fingerprint."""
    run_async(_tell(shared))


async def _tell(shared: Shared) -> None:
    async with shared.agent_here() as me:
        profile, fingerprint, address = me.profile, me.fingerprint, me.address
    shape = {
        "v": 1,
        "type": "identity",
        "agent": profile.agent,
        "username": profile.username,
        "server": profile.server,
        "fingerprint": fingerprint,
        "address": address,
        "token_path": str(profile.token_path),
    }
    shared.screen.show(shape, f"{profile.username} at {profile.server} (agent {profile.agent}, key {fingerprint})")
    shared.screen.talk(f"self-certifying address: {address}")
