"""`aimessage status` and `ack`: what became of messages, and saying that one has been dealt with."""

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async

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
    run_async(_status(shared, message_id, offline=offline))


async def _status(shared: Shared, message_id: str, *, offline: bool) -> None:
    from msgspec.structs import asdict

    async with shared.agent_here() as me:
        if me.status(message_id).state in ("waiting", "accepted", "delivered", "read") and not offline:
            await me.refresh()
        fate = me.status(message_id)
    reason = f", {fate.code}" if fate.code and fate.code != fate.state else ""
    line = f"{fate.id} to {fate.to}: {fate.state}{reason} (since {fate.changed_at})"
    shared.screen.show({"v": 1, "type": "status", **asdict(fate)}, line)


@click.command(short_help="Say that messages have been dealt with.")
@click.argument("message_ids", metavar="ID...", nargs=-1, required=True)
@shared_options
def ack(shared: Shared, message_ids: tuple[str, ...]) -> None:
    """Acknowledge messages that listen --manual-ack has shown: they do not come again, and their senders can know."""
    run_async(_ack(shared, message_ids))


async def _ack(shared: Shared, message_ids: tuple[str, ...]) -> None:
    async with shared.agent_here() as me:
        for message_id in message_ids:
            await me.acknowledge(message_id)
            shared.screen.show({"v": 1, "type": "acknowledged", "id": message_id}, f"Message {message_id} acknowledged")
        await me.flush()
