"""`aimessage read ID`: one message that has come, whole or a piece of it."""

from typing import TYPE_CHECKING

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_local
from aimessage.cli.showing import cost_on, max_chars_option, render_option, show_message

if TYPE_CHECKING:
    from aimessage.client.local import LocalAgent

__all__ = ["read"]


@click.command(short_help="Print one message that has come, whole or a piece of it.")
@click.argument("message_id", metavar="ID")
@max_chars_option(None)
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Begin at character N of the text.")
@render_option
@shared_options
def read(shared: Shared, message_id: str, max_chars: int | None, offset: int, render: str) -> None:
    """Print a message that has come; it counts as shown.

    \b
      aimessage read ID --max-chars 4000
      aimessage read ID --max-chars 4000 --offset 3390

    With --json, next_offset is where the next piece begins, and null behind the last one.
    """
    run_local(shared, lambda me: _read(shared, me, message_id, max_chars, offset, render))


async def _read(
    shared: Shared, me: "LocalAgent", message_id: str, max_chars: int | None, offset: int, render: str
) -> None:
    screen = shared.screen
    behind = _rest(shared, message_id, 10**6)
    message = await me.read(
        message_id,
        max_chars=None if max_chars is None else max_chars - len(behind) - 1,
        offset=offset,
        cost=cost_on(screen, render),
        keep=True,
    )
    show_message(screen, message, render, named=True)
    if message.next_offset is not None and not screen.as_json:
        screen.show({}, _rest(shared, message.id, message.next_offset))
    me.shown([message])  # only now: what was not printed comes again


def _rest(shared: Shared, message_id: str, offset: int) -> str:
    if shared.screen.as_json:
        return ""
    return shared.screen.hint(f"-- the next piece: aimessage read {message_id} --offset {offset}")
