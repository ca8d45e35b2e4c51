"""The log cut short at 50 places, ends of records among them: with `--paranoid-durability` every cut is told.

    python tests/endurance/truncate_wal.py [--cycles 50] [--seed 1]

Each cut hits a fresh copy of one store. Without the mark the same cuts are tried as a control: at the end of a record
the log alone looks whole, and the relay starts without what is missing.
"""  # fmt: skip

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.aftermath import PARANOID, Aftermath, aftermath_of, copy_store, make_store
from endurance.load import Crowd
from endurance.relays import say
from endurance.wal import HEADER_BYTES, newest_log, records

__all__ = ["Cuts", "cut_everywhere"]


@dataclass
class Cuts:
    """What followed the cuts, with the mark and without it."""

    with_mark: Counter[Aftermath] = field(default_factory=Counter)
    without: Counter[Aftermath] = field(default_factory=Counter)
    at_ends: int = 0
    undetected: list[str] = field(default_factory=list)

    @property
    def cuts(self) -> int:
        """How many places were tried."""
        return self.with_mark.total()

    @property
    def detected(self) -> int:
        """How many of them the relay told, with the mark."""
        return self.with_mark[Aftermath.REFUSED] + self.with_mark[Aftermath.NAMED]


def places(log: bytes, count: int, random: Random) -> list[int]:
    """Return *count* lengths below the log's own: half at ends of records, some in headers, nothing, and anywhere."""
    found = list(records(log))
    ends = [record.end for record in found[:-1]]
    last = found[-1]
    chosen = [0, last.start, last.start + HEADER_BYTES - 1, last.end - 1]
    chosen += random.sample(ends, min(count // 2, len(ends)))
    while len(chosen) < count:
        chosen.append(random.randrange(last.end))
    return chosen[:count]


async def _try(directory: Path, data: Path, length: int, crowd: Crowd, *flags: str) -> Aftermath:
    trial = directory / "trial"
    copy_store(data, trial / "data")
    try:
        os.truncate(newest_log(trial / "data"), length)
        return (await aftermath_of(trial / "data", trial / "logs", crowd, *flags))[0]
    finally:
        shutil.rmtree(trial)


async def cut_everywhere(directory: Path, *, cycles: int, seed: int, letters: int = 200) -> Cuts:
    """Cut the log at *cycles* places, each in a fresh copy."""
    random, cuts = Random(seed), Cuts()
    data, crowd = await make_store(directory, letters=letters, seed=seed)
    log = newest_log(data).read_bytes()
    ends = {record.end for record in records(log)}
    for length in places(log, cycles, random):
        cuts.at_ends += length in ends or length == 0
        aftermath = await _try(directory, data, length, crowd, PARANOID)
        cuts.with_mark[aftermath] += 1
        if aftermath not in (Aftermath.REFUSED, Aftermath.NAMED):
            cuts.undetected.append(f"cut at {length} of {len(log)}: {aftermath}")
        cuts.without[await _try(directory, data, length, crowd)] += 1
    return cuts


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        cuts = uvloop.run(cut_everywhere(Path(directory), cycles=given.cycles, seed=given.seed))
    for line in cuts.undetected:
        say(f"  NOT ALLOWED: {line}")
    say(f"  control, without the mark: {', '.join(f'{kind} {count}' for kind, count in sorted(cuts.without.items()))}")
    say(f"truncate_wal: detected {cuts.detected} of {cuts.cuts} cuts, {cuts.at_ends} of them at ends of records")
    return 0 if cuts.detected == cuts.cuts else 1


if __name__ == "__main__":
    sys.exit(main())
