"""A process that dies at a chosen commit of its vault: `python -m support.crashing HOME AGENT URL N EDGE ACTION TEXT`.

Everything that leaves or is acknowledged does so between two commits, so the edges of the commits are all the fault
points that there are: killed before the commit that follows an answer, a process has seen that answer and kept nothing.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from aimessage.client import Letter, Message, Settings
from aimessage.client.account import Here, open_here
from aimessage.client.agent import Agent
from aimessage.client.profile import load_profile
from aimessage.client.vault import Transaction, Vault

KILLED = 9


class DyingVault(Vault):
    """A vault whose process ends at its *number*-th writing transaction: before it is committed, or just after; or a
    power cut comes just after, and takes with it all that was not lasting.
    """

    def end_at(self, number: int, edge: str, path: Path) -> None:
        """Choose the moment. *path* is the vault's own; what is on disk for good is copied beside it."""
        self._left, self._edge, self._path = number, edge, path
        self._keep()

    @contextmanager
    def transaction(self, *, lasting: bool = True) -> Iterator[Transaction]:
        """As `Vault.transaction`, until the moment."""
        with super().transaction(lasting=lasting) as transaction:
            before = self._database.total_changes
            yield transaction
            writes = self._database.total_changes != before
            self._left -= writes
            if writes and self._left < 0 and self._edge == "before":
                os._exit(KILLED)
        if lasting:
            self._keep()
        if writes and self._left < 0:
            if self._edge == "power cut":
                self._undo()
            os._exit(KILLED)

    def _files(self) -> Iterator[tuple[Path, Path]]:
        for ending in ("", "-wal"):
            mine = self._path.with_name(self._path.name + ending)
            yield mine, mine.with_name(f"lasting-{mine.name}")

    def _keep(self) -> None:
        if self._edge == "power cut":
            for mine, copy in self._files():
                shutil.copyfile(mine, copy)

    def _undo(self) -> None:
        for mine, copy in self._files():
            shutil.copyfile(copy, mine)
        self._path.with_name(f"{self._path.name}-shm").unlink()  # a machine that starts again has none
        for worker in (self._path.parent / "locks").glob("worker-*"):
            os.truncate(worker, 0)  # what was noted there was never synced


def dying(settings: Settings, number: int, edge: str) -> Here:
    """Return the agent on a vault that kills this process."""
    profile = load_profile(settings)
    here = open_here(profile, None)
    here.vault.close()
    vault = DyingVault(profile.vault_path, here.account.vault_key)
    vault.end_at(number, edge, profile.vault_path)
    return Here(here.profile, here.account, vault, here.clock, here.entropy, here.living)


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def counted(messages: AsyncIterable[Message]) -> AsyncIterator[tuple[int, Message]]:
    """Yield each message behind its number, from 1."""
    number = 0
    async for message in messages:
        number += 1
        yield number, message


async def act(agent: Agent, action: str, text: str) -> None:
    """Send *text*, or a letter of each of its words; or print what is received; or listen to that many messages and die
    with the last in hand.
    """
    if action == "send_all":
        await agent.send_all([("bobby", Letter(word, idempotency_key=word)) for word in text.split()])
        return
    if action == "send":
        sent = await agent.send("bobby", text, idempotency_key=text)
        say(sent.id)
        return
    if action == "listen":
        async for number, message in counted(agent.listen()):
            say(str(message.text))
            if number == int(text):
                os._exit(KILLED)
    for message in await agent.wait(timeout=10, keep=True):
        say(str(message.text))
        agent.shown([message])
        await message.ack()
    await agent.flush()


async def main() -> None:
    """Run to the end, or to the moment."""
    home, name, url, number, edge, action, text = sys.argv[1:]
    settings = Settings(home=Path(home), agent=name, server=url)
    async with Agent(dying(settings, int(number), edge)) as agent:
        await act(agent, action, text)


if __name__ == "__main__":
    asyncio.run(main())
