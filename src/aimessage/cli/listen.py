"""`aimessage listen`: messages as they come, one line each, written out at once; or one command run for each."""

import shlex
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from aimessage.cli.durations import DURATION
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async
from aimessage.cli.showing import render_option, show_message
from aimessage.errors import BadValue, TimedOut

if TYPE_CHECKING:
    from aimessage.client import Agent, Message

__all__ = ["listen"]


class _Options(TypedDict):
    count: int | None
    timeout: timedelta | None
    since: str | None
    sender: str | None
    thread: str | None
    manual_ack: bool
    command: str | None
    command_timeout: timedelta
    render: str


@click.command(short_help="Print messages as they arrive.")
@click.option("-C", "--count", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option("-W", "--timeout", type=DURATION, metavar="30s", help="End after this time; 124 if nothing came.")
@click.option("--since", metavar="CURSOR", help="First show again what was shown behind this cursor; not with --exec.")
@click.option("--from", "sender", metavar="NAME", help="Only messages from NAME; others stay unread.")
@click.option("--thread", metavar="THREAD", help="Only messages of this thread; others stay unread.")
@click.option("--manual-ack", is_flag=True, help="Each message comes again until aimessage ack ID has been said.")
@click.option(
    "--exec",
    "command",
    metavar="COMMAND",
    help="Run COMMAND for each message, without a shell: text on stdin, the rest in AIMESSAGE_… variables. Exit 0 "
    "acknowledges.",
)
@click.option("--exec-timeout", "command_timeout", type=DURATION, default=timedelta(minutes=5), metavar="5m")
@render_option
@shared_options
def listen(shared: Shared, **options: Unpack[_Options]) -> None:
    """Print messages as they arrive, those first that waited for us.

    A newer listen of the same agent takes over; this one then ends with exit code 5.
    """
    argv = _argv(options["command"])
    if argv is not None and options["since"] is not None:
        raise BadValue(
            "--since shows messages again, and --exec would run for them again", hint="aimessage listen --help"
        )
    shown = run_async(_listen(shared, options, argv))
    if options["timeout"] is not None and shown == 0:
        raise TimedOut("nothing came in time", hint="aimessage listen --timeout 5m")


def _argv(command: str | None) -> list[str] | None:
    if command is None:
        return None
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise BadValue(f"--exec cannot be split into words: {error}") from None
    if not argv:
        raise BadValue("--exec names no command", hint="aimessage listen --exec './handle-message'")
    return argv


async def _listen(shared: Shared, options: _Options, argv: list[str] | None) -> int:
    import asyncio

    limit = options["timeout"]
    async with shared.agent_here() as me:
        shown = _show_past(shared, me, options)
        left = None if options["count"] is None else options["count"] - shown
        if left == 0:
            return shown
        messages = me.listen(
            count=left,
            sender=options["sender"],
            thread=options["thread"],
            manual_ack=options["manual_ack"] or argv is not None,
        )
        try:
            # The stream is closed before the agent is, however this ends: it holds what it has not shown.
            async with asyncio.timeout(limit.total_seconds() if limit is not None else None), aclosing(messages):
                async for message in messages:
                    show_message(shared.screen, message, options["render"], named=options["manual_ack"])
                    if argv is not None and message.type == "message":
                        await _handle(shared, message, argv, options["command_timeout"])
                    shown += 1
        except TimeoutError:
            if shown == 0 and me.trouble is not None:
                raise me.trouble from None  # nothing came, because nothing can
    return shown


def _show_past(shared: Shared, me: "Agent", options: _Options) -> int:
    """Show again what --since asks for, as one who was away would have seen it; return how much that was."""
    shown, after = 0, options["since"]
    while after is not None and (page := me.past(after)).messages:
        for message in page.messages:
            if options["sender"] not in (None, message.from_) or options["thread"] not in (None, message.thread):
                continue
            show_message(shared.screen, replace(message, redelivered=True), options["render"])
            shown += 1
            if shown == options["count"]:
                return shown
        after = page.cursor
    return shown


async def _handle(shared: Shared, message: "Message", argv: list[str], limit: timedelta) -> None:
    from aimessage.cli.execute import execute

    outcome = await execute(message, argv, limit, shared.settings().agent, to_stderr=shared.screen.as_json)
    if outcome is None:
        await message.ack()
    else:
        shared.screen.notice(f"message {message.id} is not acknowledged, and the next listen gets it again: {outcome}")
