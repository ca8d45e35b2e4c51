"""`aimessage ask`: send, wait for the answer to exactly this message, print it."""

import os
from datetime import timedelta
from pathlib import Path

import click

from aimessage.cli.bodies import body_options, read_body
from aimessage.cli.inputs import DURATION, hops_of_handler
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.render import message_line
from aimessage.cli.running import run_async

__all__ = ["ask"]


@click.command(short_help="Send a message and print the answer to it.")
@click.option("-t", "--to", "recipient", required=True, metavar="NAME")
@body_options
@click.option("--thread", metavar="THREAD", help="The conversation that this belongs to.")
@click.option("--allow-secrets", is_flag=True, help="Send even what looks like a key or a token.")
@click.option("--timeout", type=DURATION, default=timedelta(minutes=5), metavar="300s", help="124 if no answer came.")
@shared_options
def ask(  # noqa: PLR0913 - one parameter an option
    shared: Shared,
    recipient: str,
    message: str | None,
    file: Path | None,
    data: str | None,
    fold: bool,
    thread: str | None,
    timeout: timedelta,
    allow_secrets: bool,
) -> None:
    """Ask another agent and wait for its answer.

    No other command of this agent gets that answer, a listen that runs beside it included.
    """
    text, value = read_body(message, file, data, fold=fold)
    run_async(_ask(shared, recipient, text, value, thread, timeout, allow_secrets=allow_secrets))


async def _ask(  # noqa: PLR0913 - the command's own
    shared: Shared,
    recipient: str,
    text: str | None,
    value: object,
    thread: str | None,
    limit: timedelta,
    *,
    allow_secrets: bool,
) -> None:
    hops = hops_of_handler(os.environ)
    async with shared.agent_here() as me:
        answer = await me.ask(
            recipient, text, data=value, thread=thread, timeout=limit, keep=True, hops=hops, allow_secrets=allow_secrets
        )
        shape = answer.as_json()
        shared.screen.show(shape, message_line(shape))
        me.shown([answer])  # only now: what was not printed comes again
