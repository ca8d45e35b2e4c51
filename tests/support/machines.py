"""Agents on machines of their own, against a relay in this process: what a test of delivery is written in."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from msgspec.structs import replace

from aimessage.client import Message, Settings, connect, register, token_text
from aimessage.client.account import Here, open_here
from aimessage.client.profile import load_profile
from aimessage.types import SecretBytes

__all__ = ["QUIET", "Machine", "enrolled", "eventually", "heard"]

QUIET = {"rate_global": "0", "rate_connection": "0"}


class Machine:
    """One agent's directory on one machine."""

    def __init__(self, home: Path, name: str, url: str) -> None:
        self.settings = Settings(home=home, agent=name, server=url)
        self.name = name

    @classmethod
    async def enrolled(cls, home: Path, url: str, *names: str) -> "list[Machine]":
        """Register each name and return its machine."""
        machines = [cls(home, name, url) for name in names]
        for each in machines:
            await register(each.settings, each.name)
        return machines

    def here(self) -> Here:
        """Open the agent's vault; close it again."""
        return open_here(load_profile(self.settings), None)

    def container(self, home: Path) -> Settings:
        """Return what a fresh container knows: name, relay and token, as the environment holds them."""
        token = SecretBytes(token_text(self.settings).encode())
        return replace(self.settings, home=home, username=self.name, token=token)

    def snapshot(self, to: Path) -> None:
        """Copy the agent's files, as a container image or a disk snapshot does."""
        shutil.copytree(self.settings.directory, to)

    def roll_back(self, to: Path) -> None:
        """Put the files of a snapshot back."""
        shutil.rmtree(self.settings.directory)
        shutil.copytree(to, self.settings.directory)

    async def send(self, to: str, *texts: str) -> None:
        """Send each text."""
        async with connect(self.settings) as me:
            for text in texts:
                await me.send(to, text)

    async def heard(self, count: int) -> list[Message]:
        """Listen until *count* messages have been shown."""
        return await heard(self.settings, count)


async def enrolled(tmp_path: Path, url: str, *names: str) -> list[Settings]:
    """Register each name on one machine and return its settings."""
    return [each.settings for each in await Machine.enrolled(tmp_path / "home", url, *names)]


async def heard(settings: Settings, count: int) -> list[Message]:
    """Listen until *count* messages have been shown."""
    async with asyncio.timeout(60), connect(settings) as me, aclosing(me.listen(count=count)) as messages:
        return [message async for message in messages]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once *condition* holds."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - what is awaited happens in another process or vault
            await asyncio.sleep(0.02)
