"""kill -9 of the relay at random moments under load: nothing acked is lost, doubled or out of order.

    python tests/endurance/kill_relay.py [--cycles 200] [--acked 100000] [--seed 1]

`--acked` is how many messages must have been accepted in all; the kill of a cycle falls within `--load-seconds`.
"""  # fmt: skip

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from random import Random

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.load import Crowd, Verdict
from endurance.relays import Lives, say, url_of

__all__ = ["kill_again_and_again"]


async def _one_life(lives: Lives, crowd: Crowd, load_seconds: float) -> None:
    with lives.relay() as relay:
        async with asyncio.TaskGroup() as tasks:
            running = crowd.start(url_of(relay), tasks)
            await asyncio.sleep(load_seconds)
            assert relay.process.poll() is None, "the relay ended by itself"
            assert not any(task.done() for task in running), "the relay ended a link by itself"
            relay.process.kill()
            relay.process.wait()


async def kill_again_and_again(directory: Path, *, cycles: int, seed: int, load_seconds: float) -> Verdict:
    """Kill a relay under load *cycles* times, each at a random moment, and return what the parties found."""
    random, crowd = Random(seed), Crowd(senders=4, recipients=3, seed=seed)
    lives = Lives(directory / "data", directory)
    with lives.relay() as relay:
        await crowd.register(url_of(relay))
    for cycle in range(1, cycles + 1):
        await _one_life(lives, crowd, random.uniform(0.0, load_seconds))
        if cycle % 20 == 0:
            say(f"  {cycle} kills, {crowd.acked} acked")
    with lives.relay() as relay:
        await crowd.collect(url_of(relay))
    return crowd.verdict()


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--acked", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--load-seconds", type=float, default=0.4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        verdict = uvloop.run(
            kill_again_and_again(Path(directory), cycles=given.cycles, seed=given.seed, load_seconds=given.load_seconds)
        )
    say(f"kill_relay: {verdict} in {given.cycles} cycles")
    enough = verdict.acked >= given.acked or given.cycles < 200
    return 0 if verdict.clean and enough else 1


if __name__ == "__main__":
    sys.exit(main())
