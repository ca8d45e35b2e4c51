"""Every single-bit flip of 20 messages of each kind, and 64 random bits of 1 000 more.

    python tests/endurance/core_flips.py [--messages 20] [--more 1000] [--workers 0] [--seed 1]

Each flip must be refused and leave the conversation byte for byte; then the message itself, the next one and an
answer must open. `--workers 0` means one process for each processor.
"""  # fmt: skip

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.core_kinds import BODY, KINDS, bits_of, flips_that_pass

__all__ = ["flip"]

_RANDOM_BITS = 64


class Job(NamedTuple):
    """One message to be made, and whether all of its bits are flipped or only some."""

    kind: str
    seed: int
    all_bits: bool


def flip(job: Job) -> tuple[Job, int, list[int]]:
    """Return how many bits were flipped, and those that were not refused without a trace.

    Raises DecryptionFailed: afterwards, an honest message did not open.
    """
    sender, receiver, envelope = KINDS[job.kind](job.seed)
    every = bits_of(envelope)
    bits = every if job.all_bits else Random(job.seed).sample(every, _RANDOM_BITS)
    passed = flips_that_pass(receiver, envelope, bits)
    opened = [receiver.open(envelope), receiver.open(sender.seal(BODY)), sender.open(receiver.seal(BODY))]
    assert opened == [BODY] * 3, f"an honest message was opened as another: {job}"
    return job, len(bits), passed


def _jobs(messages: int, more: int, seed: int) -> list[Job]:
    names = list(KINDS)
    whole = [Job(kind, seed + 10 * at, True) for at in range(messages) for kind in names]
    return whole + [Job(names[at % len(names)], seed + 10 * (messages + at), False) for at in range(more)]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--more", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started, flips, bad = time.monotonic(), dict.fromkeys(KINDS, 0), 0
    with ProcessPoolExecutor(given.workers or os.cpu_count()) as pool:
        for job, count, passed in pool.map(flip, _jobs(given.messages, given.more, given.seed)):
            flips[job.kind] += count
            bad += len(passed)
            if passed:
                _say(f"  NOT REFUSED: {job}, bits {passed[:20]}")
    for kind, count in flips.items():
        _say(f"  {kind}: {count} flips")
    seconds = time.monotonic() - started
    _say(f"core_flips: {sum(flips.values())} flips, {bad} not refused without a trace, in {seconds:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
