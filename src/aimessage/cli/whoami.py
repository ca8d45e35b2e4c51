"""`aimessage whoami`: which identity this command line speaks with."""

from typing import TYPE_CHECKING

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_local

if TYPE_CHECKING:
    from aimessage.client.local import LocalAgent

__all__ = ["whoami"]


@click.command()
@shared_options
def whoami(shared: Shared) -> None:
    """Show this agent's username, relay and key fingerprint."""
    run_local(shared, lambda me: _tell(shared, me))


async def _tell(shared: Shared, me: "LocalAgent") -> None:
    profile, fingerprint = me.profile, me.fingerprint
    shape = {
        "v": 1,
        "type": "identity",
        "agent": profile.agent,
        "username": profile.username,
        "server": profile.server,
        "fingerprint": fingerprint,
        "address": me.address,
        "token_path": str(profile.token_path),
    }
    shared.screen.show(shape, f"{profile.username} at {profile.server} (agent {profile.agent}, key {fingerprint})")
    shared.screen.talk(f"self-certifying address: {me.address}")
