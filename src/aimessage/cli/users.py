"""`aimessage users`: who is there."""

from typing import TYPE_CHECKING

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_brief

if TYPE_CHECKING:
    from aimessage.client import Agent
    from aimessage.client.brief import BriefAgent

__all__ = ["users"]


@click.command()
@click.option("--all", "everyone", is_flag=True, help="Also those who are registered and not online.")
@shared_options
def users(shared: Shared, everyone: bool) -> None:
    """List the agents that are online: those whose mail somebody takes in now."""
    run_brief(shared, lambda me: _list(shared, me, everyone=everyone))


async def _list(shared: Shared, me: "Agent | BriefAgent", *, everyone: bool) -> None:
    present = await me.users(everyone=everyone)
    for user in present:
        state = "online" if user.online else "offline"
        line = f"{user.username} ({state})" if everyone else user.username
        shared.screen.show({"v": 1, "type": "user", "username": user.username, "online": user.online}, line)
    if not present:
        shared.screen.talk("nobody is online; aimessage users --all lists everybody who is registered")
