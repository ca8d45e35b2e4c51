"""`aimessage listen`: messages as they come, one line each, written out at once; or one command run for each."""

import shlex
import shutil
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click
from msgspec.structs import replace

from aimessage.cli.durations import DURATION
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async
from aimessage.cli.showing import render_option, show_message
from aimessage.errors import BadValue, TimedOut

if TYPE_CHECKING:
    from aimessage.cli.handlers import Handler
    from aimessage.client import Agent

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
    jobs: int
    tries: int
    retry_delay: timedelta
    webhook: str | None
    webhook_secret_file: Path | None
    webhook_allow: tuple[str, ...]


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
@click.option(
    "--webhook", metavar="URL", help="POST each message, signed, to URL on this machine. A 2xx answer acknowledges."
)
@click.option(
    "--webhook-secret-file", type=click.Path(path_type=Path), metavar="FILE", help="The key of the signature."
)
@click.option("--webhook-allow", multiple=True, metavar="HOST", help="Another machine that --webhook may name.")
@click.option(
    *("--exec-timeout", "command_timeout"),
    type=DURATION,
    default=timedelta(minutes=5),
    metavar="5m",
    help="How long one run or one POST may take.",
)
@click.option(
    *("--exec-jobs", "jobs"),
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="So many at once, of different senders; those of one sender keep their order.",
)
@click.option(
    *("--exec-tries", "tries"),
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    metavar="N",
    help="Give a message up after so many failures; aimessage retry shows it.",
)
@click.option(
    "--retry-delay",
    type=DURATION,
    default=timedelta(seconds=5),
    metavar="5s",
    help="The wait after the first failure; each further one is four times as long, at most an hour.",
)
@render_option
@shared_options
def listen(shared: Shared, **options: Unpack[_Options]) -> None:
    """Print messages as they arrive, those first that waited for us.

    A newer listen of the same agent takes over; this one then ends with exit code 5.
    """
    handler = _handler(shared, options)
    if handler is not None and options["since"] is not None:
        raise BadValue(
            "--since shows messages again, and a handler would run for them again", hint="aimessage listen --help"
        )
    shown = run_async(_listen(shared, options) if handler is None else _serve(shared, options, handler))
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
    if shutil.which(argv[0]) is None:
        raise BadValue(
            f"--exec names {argv[0]}, which is not there or cannot be run", hint="give its path, and make it executable"
        )
    return argv


def _handler(shared: Shared, options: _Options) -> "Handler | None":
    """Return what deals with each message: a command, or a POST."""
    argv, url, limit = _argv(options["command"]), options["webhook"], options["command_timeout"]
    if argv is not None and url is not None:
        raise BadValue("--exec and --webhook exclude each other", hint="run two agents, or let one call the other")
    if argv is not None:
        from aimessage.cli.execute import execute

        agent, to_stderr = shared.settings().agent, shared.screen.as_json
        return lambda message: execute(message, argv, limit, agent, to_stderr=to_stderr)
    if url is not None:
        from aimessage.cli.webhook import webhook_at

        hook = webhook_at(url, options["webhook_secret_file"], options["webhook_allow"])
        return lambda message: hook.post(message, limit)
    return None


async def _listen(shared: Shared, options: _Options) -> int:
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
            manual_ack=options["manual_ack"],
        )
        try:
            # The stream is closed before the agent is, however this ends: it holds what it has not shown.
            async with asyncio.timeout(limit.total_seconds() if limit is not None else None), aclosing(messages):
                async for message in messages:
                    show_message(shared.screen, message, options["render"], named=options["manual_ack"])
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


async def _serve(shared: Shared, options: _Options, handler: "Handler") -> int:
    """Show each message and give it to *handler*; what it does not deal with stays, and is tried again."""
    import asyncio

    from aimessage.cli.handlers import Handlers

    shown, limit = 0, options["timeout"]
    async with shared.agent_here() as me:
        messages = me.listen(sender=options["sender"], thread=options["thread"], manual_ack=True)
        handlers = Handlers(me, handler, options["jobs"], options["tries"], options["retry_delay"], shared.screen)
        try:
            async with (
                asyncio.timeout(limit.total_seconds() if limit is not None else None),
                aclosing(messages),
                handlers.working(),
            ):
                async for message in messages:
                    show_message(shared.screen, message, options["render"])
                    await handlers.take(message)
                    shown += 1
                    if shown == options["count"]:
                        break  # the stream stays open until the handlers are done: it holds what they work on
        except TimeoutError:
            if shown == 0 and me.trouble is not None:
                raise me.trouble from None
    return shown
