"""Random histories of each store against a dictionary: the property test of the stores, at full length, with crashes.

    python tests/endurance/stateful_stores.py [--cycles 5000] [--steps 20] [--seed 1] [--store memory|rocksdb|jetstream]

`--cycles` is the number of histories for each store. In the middle of them RocksDB is closed and opened again, or
crashes: what goes on is a copy of its files as they lay on the disk, sometimes with the start of one more record. On
JetStream, of which there is one history for every sixteen of the others, two relays take turns, and twenty times the
server is killed and started again.
"""  # fmt: skip

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar, Final

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.relays import say
from endurance.wal import newest_log
from stores.test_stateful import _JetStreamMachine, _Machine, _RocksMachine
from support.nats import NatsServer

__all__ = ["STORES", "run_histories"]

_TORN: Final = b"\x01\x02\x03\x04\x05"
_OTHERS_FOR_ONE: Final = 16
_QUICK: Final = Path("/dev/shm")


def _sizes(data: Path) -> list[tuple[str, int]]:
    return sorted((path.name, path.stat().st_size) for path in data.iterdir() if not path.name.startswith("LOG"))


def _copy_as_it_lies(data: Path, target: Path) -> None:
    """Copy an open store of one moment: again, if RocksDB has merged tables in the background meanwhile."""
    while True:
        with suppress(OSError):  # a file is gone: its table was merged
            before = _sizes(data)
            shutil.copytree(data, target, dirs_exist_ok=True)
            if _sizes(data) == before:
                return
        shutil.rmtree(target, ignore_errors=True)


class _CountedMemory(_Machine):
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.counts["histories"] += 1


class _CountedRocksdb(_RocksMachine):
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.counts["histories"] += 1

    @rule(torn=st.booleans())
    def crash(self, torn: bool) -> None:
        """Go on with what a kill would have left."""
        self.counts["crashes"] += 1
        left, abandoned = tempfile.TemporaryDirectory(), self.directory
        _copy_as_it_lies(Path(abandoned.name), Path(left.name))
        self.run(self.store.close())
        abandoned.cleanup()
        self.directory = left
        if torn:
            with newest_log(Path(left.name)).open("ab") as log:
                log.write(_TORN)
        self.store = self.run(self.open())


class _CountedJetstream(_JetStreamMachine):
    counts: ClassVar[Counter[str]] = Counter()
    most_kills = 20

    def __init__(self) -> None:
        super().__init__()
        self.counts["histories"] += 1

    def teardown(self) -> None:
        super().teardown()
        self.counts["crashes"] = self.kills


STORES: Final[dict[str, type[_CountedMemory | _CountedRocksdb | _CountedJetstream]]] = {
    "memory": _CountedMemory,
    "rocksdb": _CountedRocksdb,
    "jetstream": _CountedJetstream,
}


def run_histories(store: str, *, cycles: int, steps: int, seed_number: int) -> Counter[str]:
    """Run *cycles* histories of *steps* steps each and return what was counted; fails as the property test does."""
    machine = STORES[store]
    machine.counts.clear()
    length = settings(
        max_examples=cycles,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(seed_number)(machine), settings=length)
    return machine.counts


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=5_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=list(STORES))
    given = parser.parse_args()
    enough = True
    if _QUICK.is_dir():
        tempfile.tempdir = str(_QUICK)  # a crash of the process, not of the machine: no disk is needed for it
    for store in [given.store] if given.store else STORES:
        cycles = given.cycles
        with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
            if store == "jetstream":
                cycles = -(-cycles // _OTHERS_FOR_ONE)
                _CountedJetstream.server = NatsServer(Path(directory)).start()
                stack.callback(_CountedJetstream.server.stop)
            counts = run_histories(store, cycles=cycles, steps=given.steps, seed_number=given.seed)
        enough &= counts["histories"] >= cycles
        crashes = f", {counts['crashes']} crashes" if counts["crashes"] else ""
        say(f"stateful_stores: {store}: 0 violations in {counts['histories']} histories{crashes}")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
