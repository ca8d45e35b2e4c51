"""`aimessage status`, `history` and `ack`: what became of messages, and saying that one has been dealt with."""

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.render import message_line
from aimessage.cli.running import run_async

__all__ = ["ack", "history", "status"]


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


@click.command(short_help="Show what was sent and received, the newest last.")
@click.option("--with", "peer", metavar="NAME", help="Only messages to and from NAME.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N")
@click.option("--before", metavar="CURSOR", help="Continue before this cursor of an earlier page (see --json).")
@shared_options
def history(shared: Shared, peer: str | None, limit: int, before: str | None) -> None:
    """Show messages both ways.

    The text of a message of ours is kept until it is delivered, so that it can be sent again if need be, and then
    erased; its fate stays.
    """
    run_async(_history(shared, peer, limit, before))


async def _history(shared: Shared, peer: str | None, limit: int, before: str | None) -> None:
    from msgspec.structs import asdict

    async with shared.agent_here() as me:
        entries = me.history(peer=peer, limit=limit, before=before)
    for entry in entries:
        if entry.received is not None:
            shape = entry.received.as_json() | {"cursor": entry.cursor}
            shared.screen.show(shape, f"{message_line(shape)} (id {entry.received.id})")
        elif entry.sent is not None:
            shape = {"v": 1, "type": "sent", "cursor": entry.cursor, **asdict(entry.sent)}
            said = entry.sent.text or entry.sent.data or f"({entry.sent.bytes} bytes, text erased)"
            line = message_line(shape | {"from": f"me to {entry.sent.to}", "type": "message", "text": said})
            shared.screen.show(shape, f"{line} [{entry.sent.state}] (id {entry.sent.id})")


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
