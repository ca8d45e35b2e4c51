"""`aimessage wait`: block until something is there, then everything that waits, and end."""

from datetime import timedelta
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from aimessage.cli.durations import DURATION
from aimessage.cli.inbox import footer_chars, show_page
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_brief
from aimessage.cli.showing import cost_on, max_chars_option, render_option, show_message
from aimessage.errors import TimedOut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimessage.cli.render import Screen
    from aimessage.client import Agent, Message
    from aimessage.client.brief import BriefAgent

__all__ = ["wait"]


_NEXT = "aimessage wait"


class _Options(TypedDict):
    sender: str | None
    thread: str | None
    limit: int
    timeout: timedelta
    max_chars: int | None
    render: str


@click.command(short_help="Block until messages are there, print them all, and end.")
@click.option("--from", "sender", metavar="NAME", help="Only messages from NAME; others stay unread.")
@click.option("--thread", metavar="THREAD", help="Only messages of this thread; others stay unread.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, metavar="N")
@click.option("--timeout", type=DURATION, default=timedelta(seconds=55), metavar="55s", help="124 if nothing came.")
@max_chars_option(None)
@render_option
@shared_options
def wait(shared: Shared, **options: Unpack[_Options]) -> None:
    """Wait for messages and print everything that is there.

    \b
      aimessage wait --timeout 55s --render fenced --max-chars 4000

    Runs beside a listen of the same agent: each message goes to one of them. With --max-chars, long messages are cut to
    previews as by inbox, and a last line tells whether more wait.
    """
    if not run_brief(shared, lambda me: _wait(shared, me, options)):
        raise TimedOut("nothing came in time", hint="aimessage wait --timeout 5m")


async def _wait(shared: Shared, me: "Agent | BriefAgent", options: _Options) -> int:
    render = options["render"]
    messages = await me.wait(
        sender=options["sender"],
        thread=options["thread"],
        limit=options["limit"],
        timeout=options["timeout"],
        keep=True,
    )
    shown = messages
    if messages and options["max_chars"] is not None:
        shown = _within(shared.screen, messages, options["max_chars"], render)
        me.give_back(messages[len(shown) :])
    else:
        for message in messages:
            show_message(shared.screen, message, render)
    me.shown(shown)  # only now: what was not printed comes again
    return len(messages)


def _within(screen: "Screen", messages: "Sequence[Message]", max_chars: int, render: str) -> "list[Message]":
    """Print as many of *messages* as the budget pays for, and return them."""
    from aimessage.client.reading import Budget, page_of

    budget = Budget(max_chars - footer_chars(screen, _NEXT), cost_on(screen, render))
    page = page_of(messages, len(messages), budget, more=messages[-1].more_waiting)
    show_page(screen, page, render, _NEXT)
    return list(page.messages)
