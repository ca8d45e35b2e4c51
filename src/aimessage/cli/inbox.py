"""`aimessage inbox`: what waits, as previews, within a budget; the command for whoever pays for each character."""

from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.render import json_line
from aimessage.cli.running import run_brief
from aimessage.cli.showing import cost_on, max_chars_option, render_option, show_message

if TYPE_CHECKING:
    from aimessage.cli.render import Screen
    from aimessage.client import Agent, InboxPage
    from aimessage.client.brief import BriefAgent
    from aimessage.errors import AimessageError

__all__ = ["inbox", "show_page"]

_WIDEST_CURSOR = "9" * 18
_WIDEST_CODE = "x" * 32  # of what may stand before the relay


class _Options(TypedDict):
    limit: int
    max_chars: int
    cursor: str | None
    peek: bool
    sender: str | None
    thread: str | None
    state: str
    render: str


@click.command(short_help="List what waits, as previews, and end at once.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N")
@max_chars_option(8_000)
@click.option("--cursor", metavar="CURSOR", help="Go on behind this cursor of a page before.")
@click.option("--peek", is_flag=True, help="Only look: nothing counts as shown, nothing is taken over.")
@click.option("--from", "sender", metavar="NAME", help="Only messages from NAME.")
@click.option("--thread", metavar="THREAD", help="Only messages of this thread.")
@click.option(
    "--state", type=click.Choice(["unread", "shown", "handled", "dead", "all"]), default="unread", show_default=True
)
@render_option
@shared_options
def inbox(shared: Shared, **options: Unpack[_Options]) -> None:
    """List the messages that wait, oldest first, without waiting for more.

    \b
      aimessage inbox --json --max-chars 4000
      aimessage read ID

    A long message is cut to a preview and says so; "read" gives the whole. What was listed counts as shown and is not
    listed again. The last line tells whether more wait. An empty inbox is no failure: the exit code is 0.
    """
    run_brief(shared, lambda me: _inbox(shared, me, options))


async def _inbox(shared: Shared, me: "Agent | BriefAgent", options: _Options) -> None:
    screen, render = shared.screen, options["render"]
    behind = footer_chars(screen, next_command(options))
    page = await me.inbox(
        limit=options["limit"],
        max_chars=options["max_chars"] - behind,
        cursor=options["cursor"],
        peek=options["peek"],
        sender=options["sender"],
        thread=options["thread"],
        state=options["state"],
        cost=cost_on(screen, render),
        keep=True,
    )
    show_page(screen, page, render, next_command(options), me.trouble)
    if not options["peek"] and options["state"] == "unread":
        me.shown(page.messages)  # only now: what was not printed comes again


def show_page(
    screen: "Screen", page: "InboxPage", render: str, following: str, trouble: "AimessageError | None" = None
) -> None:
    """Print a page and its last line. Raises OutputClosed."""
    for message in page.messages:
        show_message(screen, message, render, named=True)
    screen.show(*_footer(screen, page, following, trouble.code if trouble is not None else None))


def footer_chars(screen: "Screen", following: str) -> int:
    """Return how many characters the last line of a page takes at most, with the command *following* in it."""
    from aimessage.client import InboxPage

    page = InboxPage((), _WIDEST_CURSOR, more_waiting=True, truncated=True)
    shape, line = _footer(screen, page, following, _WIDEST_CODE, count=1000)
    return len(json_line(shape) if screen.as_json else line) + 1


def next_command(options: _Options) -> str:
    """Return the command that lists what this one leaves; it ends where a cursor belongs, if one is needed."""
    words = [f"--state {options['state']}"] if options["state"] != "unread" else []
    words += ["--peek"] if options["peek"] else []
    words += ["--cursor"] if words or options["cursor"] else []
    return " ".join(("aimessage inbox", *words))


def _footer(
    screen: "Screen", page: "InboxPage", following: str, trouble: str | None, count: int | None = None
) -> tuple[dict[str, object], str]:
    count = len(page.messages) if count is None else count
    shape: dict[str, object] = {
        "v": 1,
        "type": "inbox",
        "count": count,
        "cursor": page.cursor,
        "more_waiting": page.more_waiting,
        "truncated": page.truncated,
        "trouble": trouble,
    }
    line = f"-- {count} message{'' if count == 1 else 's'}"
    if page.more_waiting:
        line += f"; more waiting: {following}" + (f" {page.cursor}" if following.endswith("--cursor") else "")
    if page.truncated:
        line += "; cut ones whole: aimessage read ID"
    if trouble is not None:
        line += f"; the relay could not be asked ({trouble})"
    return shape, screen.hint(line)
