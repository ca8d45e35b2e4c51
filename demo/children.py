"""One process of a cluster that runs beside its launcher: its command, its log, its end."""

import asyncio
import os
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STOP_SECONDS = 15


@dataclass
class Child:
    """What to run, and where its words go; *tell* hears in one sentence what becomes of it."""

    name: str
    words: Sequence[str | Path]
    log: Path
    tell: Callable[[str], None]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: Process | None = None
    wanted: bool = False

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.process is not None and self.process.returncode is None

    @property
    def pid(self) -> int:
        """Its process id, 0 before its first start."""
        return self.process.pid if self.process else 0

    async def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C reaches it only through its launcher, in the right order."""
        with self.log.open("ab") as sink:
            self.process = await asyncio.create_subprocess_exec(
                *self.words,
                env={**os.environ, **self.environment},
                stdin=DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        self.wanted = True
        self.tell(f"   {self.name:<8} pid {self.pid}")

    async def watch(self) -> None:
        """Tell when it ends without being asked to."""
        if self.process is not None:
            code = await self.process.wait()
            if self.wanted:
                self.tell(f"{self.name} has ended with {code} ({self.last_words()}); nobody starts it again but SIGHUP")

    async def stop(self) -> None:
        """End it in order, after some seconds by force."""
        self.wanted = False
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.tell(f"   {self.name} does not end: killed")
            self.process.kill()
            await self.process.wait()

    def last_words(self) -> str:
        """Return the last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it said nothing"
