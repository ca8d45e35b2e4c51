"""One flipped bit in the relay's store: it refuses and names the damage, or everything acked arrives.

    python tests/endurance/flip_bits.py [--cycles 40] [--seed 1]

`--cycles` is the number of flips for each kind of file. Every flip hits a fresh copy of one store that holds mail in
tables and in the log, and is tried without and with `--paranoid-durability`.

One loss is known. A flip in the length of a record near the log's end looks like the torn record of a crash, which
recovery cuts off with all behind it; the log alone cannot tell. Such flips are counted apart, as lost tails, and none
is allowed with `--paranoid-durability`. Half of the flips in the log aim at those lengths, and three each in log and
manifest at the one bit of a record's type that makes RocksDB take it for a leftover of an older log.
"""  # fmt: skip

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.aftermath import PARANOID, Aftermath, aftermath_of, copy_store, make_store
from endurance.load import Crowd
from endurance.relays import say
from endurance.wal import BLOCK_BYTES, newest_log, records

__all__ = ["Findings", "flip_everywhere"]

_MARK_BYTES = 24  # of the first slot; what follows is never read
_RECYCLED_BIT = 2  # turns a record's type into that of a recycled log: RocksDB then skips the rest, or never ends
_FILES = {
    "log": "*.log", "table": "*.sst", "manifest": "MANIFEST-*", "current": "CURRENT", "options": "OPTIONS-*",
    "mark": "high-water-mark",
}  # fmt: skip


@dataclass
class Findings:
    """How often each aftermath followed; keys are (kind of file, with the mark)."""

    counts: dict[tuple[str, bool], Counter[Aftermath]] = field(default_factory=dict)
    tails: int = 0
    tail_messages: int = 0
    silent: int = 0
    bad: list[str] = field(default_factory=list)

    def note(self, kind: str, flip: "_Flip", found: tuple[Aftermath, int], *, paranoid: bool) -> None:
        """Write down what one flip led to. In the tail the log alone cannot tell it from a torn record."""
        aftermath, lost = found
        self.counts.setdefault((kind, paranoid), Counter())[aftermath] += 1
        if aftermath is Aftermath.SILENT and flip.in_tail and not paranoid:
            self.tails += 1
            self.tail_messages += lost
        elif aftermath in (Aftermath.SILENT, Aftermath.CRASHED):
            where = f"{kind} byte {flip.byte} bit {flip.bit}{' with the mark' if paranoid else ''}"
            self.bad.append(f"{where}: {aftermath}, {lost} messages")
            self.silent += aftermath is Aftermath.SILENT

    @property
    def flips(self) -> int:
        """How many were tried."""
        return sum(counter.total() for counter in self.counts.values())


@dataclass(frozen=True, slots=True)
class _Flip:
    """One bit of one file; *in_tail*: it lies in the log's last block."""

    file: Path
    byte: int
    bit: int
    in_tail: bool = False


def _flips(data: Path, kind: str, count: int, random: Random, *, aimed: bool) -> Iterator[_Flip]:
    """Yield *count* flips: some of types if *aimed*, in a log half of lengths in its last block, and anywhere."""
    path = newest_log(data) if kind == "log" else random.choice(sorted(data.glob(_FILES[kind])))
    octets = path.read_bytes()
    if kind not in ("log", "manifest"):
        for _ in range(count):
            yield _Flip(path, random.randrange(_MARK_BYTES if kind == "mark" else len(octets)), random.randrange(8))
        return
    found = list(records(octets))
    for record in (found[0], found[len(found) // 2], found[-1]) if aimed else ():
        yield _Flip(path, record.start + 6, _RECYCLED_BIT)
    last_block = len(octets) // BLOCK_BYTES * BLOCK_BYTES if kind == "log" else len(octets)
    starts = [max(record.start, last_block) for record in found if record.end > last_block] or [found[-1].start]
    for number in range(count):
        length = random.choice(starts) + random.choice((4, 5))
        byte = length if kind == "log" and number % 2 else random.randrange(len(octets))
        yield _Flip(path, byte, random.randrange(8), byte >= last_block)


def _turn(path: Path, flip: _Flip) -> None:
    with path.open("r+b") as damaged:
        damaged.seek(flip.byte)
        value = damaged.read(1)[0]
        damaged.seek(flip.byte)
        damaged.write(bytes([value ^ 1 << flip.bit]))


async def _try(directory: Path, flip: _Flip, crowd: Crowd, *flags: str) -> tuple[Aftermath, int]:
    """Damage a copy of the store, see what comes of it, and throw the copy away."""
    trial = directory / "trial"
    copy_store(flip.file.parent, trial / "data")
    try:
        _turn(trial / "data" / flip.file.name, flip)
        return await aftermath_of(trial / "data", trial / "logs", crowd, *flags)
    finally:
        shutil.rmtree(trial)


async def flip_everywhere(
    directory: Path, *, cycles: int, seed: int, letters: int = 400, aimed: bool = True
) -> Findings:
    """Flip *cycles* bits in each kind of file, each in a fresh copy, without and with the mark; see `_flips`."""
    random, findings = Random(seed), Findings()
    data, crowd = await make_store(directory, letters=letters, seed=seed)
    copy_store(data, directory / "pristine")
    pristine, _ = await aftermath_of(directory / "pristine", directory / "pristine-logs", crowd, PARANOID)
    assert pristine is Aftermath.WHOLE, "the store is not whole before anything is flipped"
    for kind in _FILES:
        for flip in _flips(data, kind, cycles, random, aimed=aimed):
            for flags in ((), (PARANOID,)):
                if kind != "mark" or flags:
                    findings.note(kind, flip, await _try(directory, flip, crowd, *flags), paranoid=bool(flags))
    return findings


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        findings = uvloop.run(flip_everywhere(Path(directory), cycles=given.cycles, seed=given.seed))
    for (kind, paranoid), counter in findings.counts.items():
        outcome = ", ".join(f"{aftermath} {count}" for aftermath, count in sorted(counter.items()))
        say(f"  {kind:9}{'with the mark' if paranoid else '':14} {outcome}")
    for line in findings.bad:
        say(f"  NOT ALLOWED: {line}")
    say(
        f"flip_bits: silent losses {findings.silent}, ends without a word {len(findings.bad) - findings.silent} "
        f"of {findings.flips} flips; lost tails {findings.tails} ({findings.tail_messages} messages), "
        f"all of them without the mark"
    )
    return 1 if findings.bad else 0


if __name__ == "__main__":
    sys.exit(main())
