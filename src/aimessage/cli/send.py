"""`aimessage send`: one body, one or several recipients, an outcome for each."""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from aimessage.cli.bodies import body_options
from aimessage.cli.durations import DURATION
from aimessage.cli.failures import Failure, explain
from aimessage.cli.inputs import read_body
from aimessage.cli.octets import hops_of_handler
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async
from aimessage.errors import AimessageError

if TYPE_CHECKING:
    from aimessage.client.agent import Agent

__all__ = ["send"]


class _Options(TypedDict):
    message: str | None
    file: Path | None
    data: str | None
    fold: bool
    thread: str | None
    reply_to: str | None
    ttl: timedelta | None
    wait_for: str
    idempotency_key: str | None
    timeout: timedelta
    dry_run: bool
    no_reply: bool
    allow_secrets: bool


@dataclass(frozen=True, slots=True)
class _Letter:
    text: str | None
    data: object
    thread: str | None
    reply_to: str | None
    ttl: timedelta | None
    wait_for: str
    idempotency_key: str | None
    timeout: timedelta
    expects_reply: bool
    allow_secrets: bool
    hops: int

    @property
    def size_bytes(self) -> int:
        return len((self.text or "").encode())


@click.command(short_help="Send a message to one or several agents.")
@click.option("-t", "--to", "recipients", multiple=True, required=True, metavar="NAME", help="Repeatable.")
@body_options
@click.option("--thread", metavar="THREAD", help="The conversation that this belongs to.")
@click.option("--reply-to", metavar="ID", help="The message that this answers.")
@click.option("--ttl", type=DURATION, metavar="1h", help="Nobody reads it after this time.")
@click.option(
    "--wait-for",
    type=click.Choice(["accepted", "delivered", "read", "handled"]),
    default="accepted",
    show_default=True,
    help="Return once the message has this fate; 124 if it does not come in time.",
)
@click.option("--no-reply", is_flag=True, help="Say that no answer is wanted.")
@click.option("--allow-secrets", is_flag=True, help="Send even what looks like a key or a token.")
@click.option("--idempotency-key", metavar="KEY", help="The same key again is the same message: it is sent once.")
@click.option("--timeout", type=DURATION, default=timedelta(seconds=30), metavar="30s", help="Keep trying so long.")
@click.option("--dry-run", is_flag=True, help="Check everything that can be checked here; send nothing.")
@shared_options
def send(shared: Shared, recipients: tuple[str, ...], **options: Unpack[_Options]) -> int:
    """Send a message; it is sealed here, and only the recipient can open it.

    \b
      aimessage send --to NAME -m - <<'END'
      any text, byte for byte: $HOME `date` "quotes"
      END
      aimessage send --to NAME --file notes.txt
      aimessage send --to NAME -m 'in single quotes, or the shell replaces $ and `'

    "accepted" means that the relay has it on disk; the recipient may be offline. "delivered": the recipient's program
    has it on disk; "read": a consumer was shown it; "handled": a consumer acknowledged it. When it is not accepted in
    time, the exit code is 75 and the message waits in the outbox for this agent's next command.
    """
    text, value = read_body(options["message"], options["file"], options["data"], fold=options["fold"])
    letter = _Letter(
        text,
        value,
        thread=options["thread"],
        reply_to=options["reply_to"],
        ttl=options["ttl"],
        wait_for=options["wait_for"],
        idempotency_key=options["idempotency_key"],
        timeout=options["timeout"],
        expects_reply=not options["no_reply"],
        allow_secrets=options["allow_secrets"],
        hops=hops_of_handler(os.environ),
    )
    names = list(dict.fromkeys(recipients))
    if options["dry_run"]:
        return _rehearse(shared, names, letter)
    return run_async(_send(shared, names, letter))


def _rehearse(shared: Shared, names: list[str], letter: _Letter) -> int:
    from aimessage.client import Letter

    fields = (letter.text, letter.data, letter.thread, letter.reply_to, letter.ttl)
    Letter(*fields, allow_secrets=letter.allow_secrets).check()
    shared.settings()
    for name in names:
        shared.screen.show(
            {"v": 1, "type": "dry_run", "to": name, "state": "not_sent", "bytes": letter.size_bytes},
            f"Message to {name} not sent (dry run)",
        )
    return 0


async def _send(shared: Shared, names: list[str], letter: _Letter) -> int:
    import asyncio

    async with shared.agent_here() as me, asyncio.TaskGroup() as group:
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
            wait_for=letter.wait_for,
            idempotency_key=letter.idempotency_key,
            timeout=letter.timeout,
            expects_reply=letter.expects_reply,
            allow_secrets=letter.allow_secrets,
            hops=letter.hops,
        )
    except AimessageError as error:
        return explain(error)
    shared.screen.show(
        {"v": 1, "type": "sent", "id": sent.id, "to": sent.to, "state": sent.state},
        f"Message sent to {sent.to} ({sent.state})",
    )
    return None
