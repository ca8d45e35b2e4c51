"""The relay's disk fills up under load, twice: nothing unwritten is acked, mail goes out, and it recovers by itself.

    python tests/endurance/full_disk.py [--cycles 10] [--seed 1]

A cycle on a tmpfs of 300 MiB: first the space left falls under the relay's floor, where it must refuse new mail and
still deliver and delete; then everything is taken, so that its writes fail. Both times the space comes back and the
seconds until the next accepted message are measured. In the end the relay is killed, and all that was acked is there.
"""  # fmt: skip

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.load import Crowd, Verdict
from endurance.parties import Sender, until_cut
from endurance.relays import Lives, say, url_of

__all__ = ["Shortage", "starve_again_and_again", "why_no_small_disk"]

_SIZE_MIB: Final = 300
_MIB: Final = 1 << 20
_LOAD: Final = 1_000
_UNDER_THE_FLOOR: Final = 40 * _MIB
_BOUND_SECONDS: Final = 60.0
_ALLOWED_SECONDS: Final = 10.0


def why_no_small_disk() -> str:
    """Return why no small file system can be mounted here; empty if it can."""
    return "" if os.geteuid() == 0 else "it needs root, to mount a tmpfs"


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """Mount a tmpfs. Raises OSError: this machine does not let us."""
    directory.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MIB}m", "none", str(directory)]
    done = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


class Ballast:
    """A file that takes the space away."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self, leave_bytes: int) -> None:
        """Take everything but *leave_bytes*, whoever else writes meanwhile."""
        with self._path.open("ab", buffering=0) as file, suppress(OSError):
            while (room := self._free() - leave_bytes) > 0:
                file.write(bytes(min(room, _MIB)))

    def drop(self) -> None:
        """Give it all back."""
        self._path.unlink()

    def _free(self) -> int:
        stat = os.statvfs(self._path.parent)
        return stat.f_bavail * stat.f_frsize


@dataclass
class Shortage:
    """What was seen: seconds until the next accepted message, and what went on meanwhile."""

    recoveries: list[float] = field(default_factory=list)
    acked_below_floor: int = 0
    delivered_below_floor: int = 0
    left_below_floor: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    same_process: bool = True
    verdict: Verdict | None = None

    @property
    def clean(self) -> bool:
        """Whether the bar is met."""
        in_time = bool(self.recoveries) and max(self.recoveries) <= _ALLOWED_SECONDS
        went_on = self.delivered_below_floor > 0 and self.left_below_floor == 0 and self.acked_below_floor == 0
        return in_time and went_on and self.same_process and self.verdict is not None and self.verdict.clean


class Scene:
    """One relay on the small disk, and senders that come back whenever their link breaks."""

    def __init__(self, url: str, crowd: Crowd, ballast: Ballast) -> None:
        self._url = url
        self._crowd = crowd
        self._ballast = ballast
        self.found = Shortage()

    async def persist(self, sender: Sender) -> None:
        """Send for ever."""
        while True:
            await until_cut(sender.run(self._url))
            await asyncio.sleep(0.1)

    async def under_the_floor(self) -> None:
        """Take the space down to where new mail is refused; mail must still go out, and be deleted."""
        await self._load()
        self._ballast.fill(_UNDER_THE_FLOOR)
        await self._all_refused()
        acked, seen = self._crowd.acked, self._seen()
        await self._crowd.collect(self._url)
        self.found.delivered_below_floor += self._seen() - seen
        self.found.left_below_floor += await self._left()
        self.found.acked_below_floor += self._crowd.acked - acked
        await self._recover()

    async def to_the_last_byte(self) -> None:
        """Take everything, and make the relay write all the same: deletions need no space by its own rule."""
        await self._load()
        self._ballast.fill(0)
        await self._all_refused()
        for recipient in self._crowd.recipients:
            await until_cut(recipient.run(self._url, until_caught_up=True))
        await self._all_refused()
        await self._recover()

    async def _load(self) -> None:
        """Let some mail come in first."""
        enough = self._crowd.acked + _LOAD
        await _until(lambda: self._crowd.acked >= enough)

    async def _left(self) -> int:
        """Return what is still kept, once the last deletions have had their moment."""
        for _ in range(50):
            if not await self._crowd.waiting(self._url):
                return 0
            await asyncio.sleep(0.1)
        return await self._crowd.waiting(self._url)

    async def _all_refused(self) -> None:
        """Wait until each sender has been refused a whole window since now: nothing of before is under way."""
        enough = [(sender, sender.refusals.total() + 2 * sender.window) for sender in self._crowd.senders]
        await _until(lambda: all(sender.refusals.total() >= count for sender, count in enough))

    async def _recover(self) -> None:
        acked, since = self._crowd.acked, monotonic()
        self._ballast.drop()
        await _until(lambda: self._crowd.acked > acked)
        self.found.recoveries.append(monotonic() - since)

    def _seen(self) -> int:
        return sum(len(recipient.seen) for recipient in self._crowd.recipients)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_BOUND_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for lies in another process
            await asyncio.sleep(0.02)


async def starve_again_and_again(directory: Path, *, cycles: int, seed: int) -> Shortage:
    """Starve one relay *cycles* times both ways. Raises OSError: this machine does not let us mount."""
    crowd = Crowd(senders=3, recipients=2, size=2_000, window=20, seed=seed)
    with small_disk(directory / "small") as small:
        lives = Lives(small / "data", directory)
        with lives.relay() as relay:
            await crowd.register(url_of(relay))
            scene = Scene(url_of(relay), crowd, Ballast(small / "ballast"))
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(scene.persist(sender)) for sender in crowd.senders]
                for _ in range(cycles):
                    await scene.under_the_floor()
                    await scene.to_the_last_byte()
                    await crowd.collect(url_of(relay))
                for task in running:
                    task.cancel()
            scene.found.same_process = relay.process.poll() is None
            relay.process.kill()
            relay.process.wait()
        with lives.relay() as relay:
            await crowd.collect(url_of(relay))
    scene.found.verdict = crowd.verdict()
    for sender in crowd.senders:
        scene.found.refusals += sender.refusals
    return scene.found


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if reason := why_no_small_disk():
        say(f"full_disk: skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        try:
            found = uvloop.run(starve_again_and_again(Path(directory), cycles=given.cycles, seed=given.seed))
        except OSError as error:
            say(f"full_disk: skipped: {error}")
            return 0
    say(
        f"  below the floor: {found.acked_below_floor} accepted, {found.delivered_below_floor} delivered and deleted, "
        f"{found.left_below_floor} left"
    )
    for message, count in found.refusals.items():
        say(f"  refused {count} times: {message}")
    say(f"  writes again after {', '.join(f'{seconds:.1f}' for seconds in found.recoveries)} s, by itself")
    say(f"full_disk: recovers in at most {max(found.recoveries):.1f} s; {found.verdict}")
    return 0 if found.clean else 1


if __name__ == "__main__":
    sys.exit(main())
