"""`aimessage send`: one body, one or several recipients, an outcome for each."""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from aimessage.cli.failures import Failure, explain
from aimessage.cli.inputs import DURATION, parse_json, read_file, read_stdin
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async
from aimessage.errors import AimessageError, BadValue, EmptyMessage

if TYPE_CHECKING:
    from aimessage.client.agent import Agent

__all__ = ["send"]


class _Options(TypedDict):
    message: str | None
    file: Path | None
    data: str | None
    thread: str | None
    reply_to: str | None
    ttl: timedelta | None
    wait_for: str
    timeout: timedelta
    dry_run: bool


@dataclass(frozen=True, slots=True)
class _Letter:
    text: str | None
    data: object
    thread: str | None
    reply_to: str | None
    ttl: timedelta | None
    timeout: timedelta

    @property
    def size_bytes(self) -> int:
        return len((self.text or "").encode())


@click.command(short_help="Send a message to one or several agents.")
@click.option("-t", "--to", "recipients", multiple=True, required=True, metavar="NAME", help="Repeatable.")
@click.option("-m", "--message", metavar="TEXT", help="The text; - reads standard input.")
@click.option("--file", type=click.Path(path_type=Path), metavar="FILE", help="Send this file's text.")
@click.option("--data", metavar="JSON", help="Send a JSON value.")
@click.option("--thread", metavar="THREAD", help="The conversation that this belongs to.")
@click.option("--reply-to", metavar="ID", help="The message that this answers.")
@click.option("--ttl", type=DURATION, metavar="1h", help="Nobody reads it after this time.")
@click.option(
    "--wait-for",
    type=click.Choice(["accepted", "delivered", "read", "handled"]),
    default="accepted",
    show_default=True,
)
@click.option("--timeout", type=DURATION, default=timedelta(seconds=30), metavar="30s", help="Keep trying so long.")
@click.option("--dry-run", is_flag=True, help="Check everything that can be checked here; send nothing.")
@shared_options
def send(shared: Shared, recipients: tuple[str, ...], **options: Unpack[_Options]) -> int:
    """Send a message; it is sealed here, and only the recipient can open it.

    "accepted" means that the relay has it on disk; the recipient may be offline. When it is not accepted in time, the
    exit code is 75 and the message waits in the outbox for this agent's next command.
    """
    if (fate := options["wait_for"]) != "accepted":
        raise BadValue(f"waiting until a message is {fate} is not supported yet", hint="use --wait-for accepted")
    text, value = _body(options["message"], options["file"], options["data"])
    thread, reply_to = options["thread"], options["reply_to"]
    letter = _Letter(text, value, thread, reply_to, options["ttl"], options["timeout"])
    names = list(dict.fromkeys(recipients))
    if options["dry_run"]:
        return _rehearse(shared, names, letter)
    return run_async(_send(shared, names, letter))


def _body(message: str | None, file: Path | None, data: str | None) -> tuple[str | None, object]:
    if sum(source is not None for source in (message, file, data)) > 1:
        raise BadValue("more than one message body", hint="pass one of -m TEXT, --file FILE and --data JSON")
    if data is not None:
        return None, parse_json(data)
    from aimessage.client import decode_text

    if file is not None:
        return decode_text(read_file(file)), None
    if message is None:
        raise EmptyMessage("no message")
    return decode_text(read_stdin() if message == "-" else _argument_bytes(message)), None


def _argument_bytes(argument: str) -> bytes:
    return os.fsencode(argument)  # the bytes that the shell passed: what is not UTF-8 is refused, not guessed


def _rehearse(shared: Shared, names: list[str], letter: _Letter) -> int:
    from aimessage.client import require_clean

    if letter.text is not None:
        require_clean(letter.text)
    shared.settings()
    for name in names:
        shared.screen.show(
            {"v": 1, "type": "dry_run", "to": name, "state": "not_sent", "bytes": letter.size_bytes},
            f"Message to {name} not sent (dry run)",
        )
    return 0


async def _send(shared: Shared, names: list[str], letter: _Letter) -> int:
    import asyncio

    from aimessage import client

    async with client.connect(shared.settings()) as me, asyncio.TaskGroup() as group:
        sends = {name: group.create_task(_one(shared, me, name, letter)) for name in names}
    failed = {name: failure for name, task in sends.items() if (failure := task.result()) is not None}
    failures = [failure.about(name) if len(names) > 1 else failure for name, failure in failed.items()]
    for failure in failures:
        shared.screen.fail(failure)
    return failures[0].exit_code if failures else 0


async def _one(shared: Shared, me: "Agent", name: str, letter: _Letter) -> Failure | None:
    try:
        sent = await me.send(
            name,
            letter.text,
            data=letter.data,
            thread=letter.thread,
            reply_to=letter.reply_to,
            ttl=letter.ttl,
            timeout=letter.timeout,
        )
    except AimessageError as error:
        return explain(error)
    shared.screen.show(
        {"v": 1, "type": "sent", "id": sent.id, "to": sent.to, "state": sent.state},
        f"Message sent to {sent.to} ({sent.state})",
    )
    return None
