"""`aimessage wait`: block until something is there, then everything that waits, and end."""

from dataclasses import dataclass
from datetime import timedelta

import click

from aimessage.cli.inputs import DURATION
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async
from aimessage.cli.showing import render_option, show_message
from aimessage.errors import TimedOut

__all__ = ["wait"]


@dataclass(frozen=True, slots=True)
class _Wanted:
    sender: str | None
    thread: str | None


@click.command(short_help="Block until messages are there, print them all, and end.")
@click.option("--from", "sender", metavar="NAME", help="Only messages from NAME; others stay unread.")
@click.option("--thread", metavar="THREAD", help="Only messages of this thread; others stay unread.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, metavar="N")
@click.option("--timeout", type=DURATION, default=timedelta(seconds=55), metavar="55s", help="124 if nothing came.")
@render_option
@shared_options
def wait(shared: Shared, sender: str | None, thread: str | None, limit: int, timeout: timedelta, render: str) -> None:
    """Wait for messages and print everything that is there.

    Runs beside a listen of the same agent: each message goes to one of them.
    """
    if not run_async(_wait(shared, _Wanted(sender, thread), limit, timeout, render)):
        raise TimedOut("nothing came in time", hint="aimessage wait --timeout 5m")


async def _wait(shared: Shared, wanted: _Wanted, limit: int, longest: timedelta, render: str) -> int:
    async with shared.agent_here() as me:
        messages = await me.wait(sender=wanted.sender, thread=wanted.thread, limit=limit, timeout=longest, keep=True)
        for message in messages:
            show_message(shared.screen, message, render)
        me.shown(messages)  # only now: what was not printed comes again
    return len(messages)
