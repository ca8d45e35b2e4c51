"""`aimessage listen`: messages as they come, one line each, written out at once."""

from contextlib import aclosing
from datetime import timedelta

import click

from aimessage.cli.inputs import DURATION
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.render import message_line
from aimessage.cli.running import run_async
from aimessage.errors import TimedOut

__all__ = ["listen"]


@click.command()
@click.option("-C", "--count", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option("-W", "--timeout", type=DURATION, metavar="30s", help="End after this time; 124 if nothing came.")
@click.option("--from", "sender", metavar="NAME", help="Only messages from NAME; others stay unread.")
@shared_options
def listen(shared: Shared, count: int | None, timeout: timedelta | None, sender: str | None) -> None:
    """Print messages as they arrive, those first that waited for us."""
    shown = run_async(_listen(shared, count, timeout.total_seconds() if timeout is not None else None, sender))
    if timeout is not None and shown == 0:
        raise TimedOut("nothing came in time", hint="aimessage listen --timeout 5m")


async def _listen(shared: Shared, count: int | None, limit: float | None, sender: str | None) -> int:
    import asyncio

    from aimessage import client

    shown = 0
    async with client.connect(shared.settings()) as me:
        try:
            # The stream is closed before the agent is, however this ends: it holds what it has not shown.
            async with asyncio.timeout(limit), aclosing(me.listen(count=count, sender=sender)) as messages:
                async for message in messages:
                    shape = message.as_json()
                    shared.screen.show(shape, message_line(shape))
                    shown += 1
        except TimeoutError:
            pass  # the time that the caller gave is over, which is an answer and not a failure
    return shown
