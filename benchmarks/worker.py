"""The other process of a measurement: it does one kind of work for some agents of one home."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from aimessage.client import Agent, Settings, connect
from aimessage.errors import AimessageError

_BODY = "x" * 248
_IN_FLIGHT = 256


def tell(word: str) -> None:
    """Tell the measuring process how far we are."""
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()


async def echo(me: Agent, count: int) -> None:
    """Answer *count* messages."""
    async for message in me.listen(count=count):
        await me.send(message.from_, message.text)


def recipient_of(me: Agent) -> str:
    """Return who gets what this sender sends."""
    return me.profile.username.replace("sender", "recipient")


async def meet(me: Agent) -> None:
    """Write to the recipient and be answered: a session that has been answered carries no prekeys any more."""
    await me.ask(recipient_of(me), "hello")


async def send(me: Agent, count: int) -> None:
    """Send *count* different messages to the recipient of our number, many at a time."""
    to = recipient_of(me)
    room = asyncio.Semaphore(_IN_FLIGHT)

    async def one(number: int) -> None:
        async with room:
            await me.send(to, f"{number:08}{_BODY}")

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))


async def send_all(me: Agent, count: int) -> None:
    """Send the same in one call."""
    to = recipient_of(me)
    outcomes = await me.send_all([(to, f"{number:08}{_BODY}") for number in range(count)], timeout=300)
    if lost := [each for each in outcomes if isinstance(each, AimessageError)]:
        raise lost[0]


async def greet(me: Agent, count: int) -> None:
    """Be met by *count* senders."""
    async for message in me.listen(count=count):
        await me.reply_to(message, "hello")


async def fetch(me: Agent, count: int) -> None:
    """Be shown *count* messages, in order."""
    expected = 0
    async for message in me.listen(count=count):
        if int((message.text or "")[:8]) != expected:
            raise SystemExit(f"message {expected} is missing: {message.text!r}")
        expected += 1


async def receive(me: Agent, count: int) -> None:
    """Be met by a sender, and be shown its *count* messages."""
    await greet(me, 1)
    await fetch(me, count)


async def main(role: str, home: Path, server: str, names: str, count: int) -> None:
    """Run one agent of each name at once."""
    works = {each.__name__: each for each in (echo, send, send_all, receive, greet, fetch)}
    work = works[role]

    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(connect(Settings(home, name, server))) for name in names.split(",")]
        if role in ("send", "send_all"):
            await asyncio.gather(*(meet(me) for me in agents))
        await asyncio.gather(*(me.users() for me in agents))  # every link is open before the clock starts
        tell("ready")
        async with asyncio.TaskGroup() as group:
            for me in agents:
                group.create_task(work(me, count))
        tell("done")


if __name__ == "__main__":
    role, home, server, names, count = sys.argv[1:]
    uvloop.run(main(role, Path(home), server, names, int(count)))
