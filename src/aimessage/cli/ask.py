"""`aimessage ask`: send, wait for the answer to exactly this message, print it."""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click

from aimessage.cli.bodies import body_options
from aimessage.cli.durations import DURATION
from aimessage.cli.inputs import read_body
from aimessage.cli.octets import hops_of_handler
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async
from aimessage.cli.showing import render_option, show_message

__all__ = ["ask"]


@dataclass(frozen=True, slots=True)
class _Question:
    to: str
    text: str | None
    data: object
    thread: str | None
    allow_secrets: bool = False


@click.command(short_help="Send a message and print the answer to it.")
@click.option("-t", "--to", "recipient", required=True, metavar="NAME")
@body_options
@click.option("--thread", metavar="THREAD", help="The conversation that this belongs to.")
@click.option("--allow-secrets", is_flag=True, help="Send even what looks like a key or a token.")
@click.option("--timeout", type=DURATION, default=timedelta(minutes=5), metavar="300s", help="124 if no answer came.")
@render_option
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
    render: str,
) -> None:
    """Ask another agent and wait for its answer.

    \b
      aimessage ask --to NAME -m - --timeout 300 <<'END'
      any text, byte for byte: $HOME `date` "quotes"
      END
      aimessage ask --to NAME --file question.txt
      aimessage ask --to NAME -m 'in single quotes, or the shell replaces $ and `'

    No other command of this agent gets that answer, a listen that runs beside it included.
    """
    text, value = read_body(message, file, data, fold=fold)
    question = _Question(recipient, text, value, thread, allow_secrets=allow_secrets)
    run_async(_ask(shared, question, timeout, render))


async def _ask(shared: Shared, question: _Question, limit: timedelta, render: str) -> None:
    hops = hops_of_handler(os.environ)
    async with shared.agent_here() as me:
        answer = await me.ask(
            question.to,
            question.text,
            data=question.data,
            thread=question.thread,
            timeout=limit,
            keep=True,
            hops=hops,
            allow_secrets=question.allow_secrets,
        )
        show_message(shared.screen, answer, render)
        me.shown([answer])  # only now: what was not printed comes again
