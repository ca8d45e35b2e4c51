"""`aimessage retry`: what handlers have given up, and giving it to them again."""

from typing import TYPE_CHECKING

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_local

if TYPE_CHECKING:
    from aimessage.client.local import LocalAgent

__all__ = ["retry"]


@click.command(short_help="Show what handlers gave up, or try it again.")
@click.argument("message_ids", metavar="[ID]...", nargs=-1)
@shared_options
def retry(shared: Shared, message_ids: tuple[str, ...]) -> None:
    """Give messages that --exec or --webhook gave up to the next listen; without ID, show them.

    To be rid of one instead: aimessage ack ID.
    """
    run_local(shared, lambda me: _retry(shared, me, message_ids))


async def _retry(shared: Shared, me: "LocalAgent", message_ids: tuple[str, ...]) -> None:
    from msgspec import to_builtins

    for message_id in message_ids:
        me.retry(message_id)
        shared.screen.show({"v": 1, "type": "retry", "id": message_id}, f"Message {message_id} comes again")
    for each in [] if message_ids else me.dead_letters():
        shape = {"v": 1, "type": "dead_letter", **to_builtins(each)}
        line = f"{each.id} from {each.from_}: given up after {each.tries} tries, {each.trouble}"
        shared.screen.show(shape, line)
