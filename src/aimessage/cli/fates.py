"""`aimessage status` and `ack`: what became of messages, and saying that one has been dealt with."""

from typing import TYPE_CHECKING

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_brief, run_local

if TYPE_CHECKING:
    from aimessage.client import Agent
    from aimessage.client.brief import BriefAgent
    from aimessage.client.local import LocalAgent

__all__ = ["ack", "status"]


@click.command(short_help="Tell what became of a message that was sent.")
@click.argument("message_id", metavar="ID")
@click.option("--offline", is_flag=True, help="Tell what is known here; do not look for receipts at the relay.")
@shared_options
def status(shared: Shared, message_id: str, offline: bool) -> None:
    """Show a message's fate.

    waiting, accepted (on the relay's disk), delivered (on the recipient's), read, handled; or refused, expired,
    undecryptable.
    """
    if offline:
        run_local(shared, lambda me: _show(shared, me, message_id))
    else:
        run_brief(shared, lambda me: _status(shared, me, message_id))


async def _status(shared: Shared, me: "Agent | BriefAgent", message_id: str) -> None:
    if me.status(message_id).state in ("waiting", "accepted", "delivered", "read"):
        await me.refresh()
    await _show(shared, me, message_id)


async def _show(shared: Shared, me: "LocalAgent", message_id: str) -> None:
    from msgspec.structs import asdict

    fate = me.status(message_id)
    reason = f", {fate.code}" if fate.code and fate.code != fate.state else ""
    line = f"{fate.id} to {fate.to}: {fate.state}{reason} (since {fate.changed_at})"
    shared.screen.show({"v": 1, "type": "status", **asdict(fate)}, line)


@click.command(short_help="Say that messages have been dealt with.")
@click.argument("message_ids", metavar="ID...", nargs=-1, required=True)
@shared_options
def ack(shared: Shared, message_ids: tuple[str, ...]) -> None:
    """Acknowledge messages that listen --manual-ack has shown: they do not come again, and their senders can know."""
    run_brief(shared, lambda me: _ack(shared, me, message_ids))


async def _ack(shared: Shared, me: "Agent | BriefAgent", message_ids: tuple[str, ...]) -> None:
    for message_id in message_ids:
        await me.acknowledge(message_id)
        shared.screen.show({"v": 1, "type": "acknowledged", "id": message_id}, f"Message {message_id} acknowledged")
    await me.flush()
