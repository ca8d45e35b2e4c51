"""The power fails under load, again and again: every message that was acked is there when it comes back.

    python tests/endurance/power_cut.py [--cycles 25] [--seed 1] [--directory DIR]

The relay's store lies on a disk whose write cache is lost with the power (see `disk.py`). Each cut also proves the
disk: a file that was synced must be whole behind it, one that was not must be gone.

That sync of another file can bring the log's new length to the disk before its data: a last record of zeros, of which
nobody was told. A relay that refuses to start on it has lost nothing, and is counted: the script then cuts the torn
record off by hand and goes on.
"""  # fmt: skip

import argparse
import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.disk import VolatileDisk, volatile_disk, why_no_disk
from endurance.load import Crowd, Verdict
from endurance.relays import Lives, say, url_of

__all__ = ["Outage", "cut_again_and_again"]

_SIZE_BYTES = 512 << 20
_LOAD_SECONDS = 1.5
_WITNESS = b"was here " * 10_000


@dataclass
class Outage:
    """What the cuts left: the parties' verdict, and what became of the witnesses."""

    cuts: int = 0
    synced_kept: int = 0
    unsynced_lost: int = 0
    torn: int = 0
    verdict: Verdict | None = None

    @property
    def rig_works(self) -> bool:
        """Whether the disk lost what it should and kept what it must."""
        return self.synced_kept == self.unsynced_lost == self.cuts > 0


def _plant_witnesses(inner: Path) -> None:
    for name, synced in (("synced", True), ("unsynced", False)):
        with (inner / name).open("wb", buffering=0) as witness:
            witness.write(_WITNESS)
            if synced:
                os.fsync(witness.fileno())


def _question_witnesses(inner: Path, outage: Outage) -> None:
    synced, unsynced = inner / "synced", inner / "unsynced"
    outage.cuts += 1
    outage.synced_kept += synced.exists() and synced.read_bytes() == _WITNESS
    outage.unsynced_lost += not unsynced.exists() or unsynced.read_bytes() != _WITNESS
    for witness in (synced, unsynced):
        witness.unlink(missing_ok=True)


async def _one_outage(disk: VolatileDisk, lives: Lives, crowd: Crowd, outage: Outage, load_seconds: float) -> None:
    with lives.relay() as relay:
        async with asyncio.TaskGroup() as tasks:
            running = crowd.start(url_of(relay), tasks)
            await asyncio.sleep(load_seconds)
            assert not any(task.done() for task in running), "the relay ended a link by itself"
            _plant_witnesses(disk.inner)
            disk.cut()
            await asyncio.sleep(0.05)  # the machine is dead; a relay that would still ack now is caught lying
            relay.process.kill()
            relay.process.wait()


async def cut_again_and_again(directory: Path, *, cycles: int, seed: int, size_bytes: int = _SIZE_BYTES) -> Outage:
    """Cut the power *cycles* times under load. Raises OSError: this machine does not let us make such a disk."""
    random, crowd, outage = Random(seed), Crowd(senders=4, recipients=3, seed=seed), Outage()
    with volatile_disk(directory, size_bytes) as disk:
        lives = Lives(disk.inner / "data", directory)
        with lives.relay() as relay:
            await crowd.register(url_of(relay))
        for _ in range(cycles):
            await _one_outage(disk, lives, crowd, outage, random.uniform(0.1, _LOAD_SECONDS))
            disk.power_on()
            _question_witnesses(disk.inner, outage)
        with lives.relay() as relay:
            await crowd.collect(url_of(relay))
        outage.torn = len(list(lives.data.glob("*.torn")))
    outage.verdict = crowd.verdict()
    return outage


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, help="where the platter lies; 650 MiB")
    given = parser.parse_args()
    if reason := why_no_disk():
        say(f"power_cut: skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        try:
            outage = uvloop.run(cut_again_and_again(Path(directory), cycles=given.cycles, seed=given.seed))
        except OSError as error:
            say(f"power_cut: skipped: {error}")
            return 0
    say(
        f"  the disk: {outage.synced_kept} of {outage.cuts} synced files kept, "
        f"{outage.unsynced_lost} of {outage.cuts} unsynced ones lost"
    )
    say(f"power_cut: {outage.verdict} in {outage.cuts} cuts; {outage.torn} of them left a torn record")
    clean = outage.verdict is not None and outage.verdict.clean
    return 0 if clean and outage.rig_works else 1


if __name__ == "__main__":
    sys.exit(main())
