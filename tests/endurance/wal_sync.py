"""Each ack leaves the relay behind an fdatasync of the log that holds its message, seen by strace.

    python tests/endurance/wal_sync.py [--cycles 10000] [--window 2]

`--cycles` is the number of acks; a small window makes for many commits with few messages each.
"""  # fmt: skip

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.load import Crowd
from endurance.relays import Lives, say, url_of
from endurance.strace import Syncs, judge, tracing, why_not_traceable

__all__ = ["Traced", "send_traced"]


@dataclass(frozen=True, slots=True)
class Traced:
    """A trace, what the logs held before it, and how many acks the senders got."""

    trace: Path
    before: dict[str, bytes]
    acked: int

    def judge(self, *, without: str = "") -> Syncs:
        """See `strace.judge`."""
        return judge(self.trace, self.before, without=without)


async def send_traced(directory: Path, *, acks: int, window: int = 2, seed: int = 1) -> Traced:
    """Send until *acks* messages are accepted by a relay under strace."""
    crowd = Crowd(senders=4, recipients=2, window=window, seed=seed)
    data, trace = directory / "data", directory / "trace"
    with Lives(data, directory).relay() as relay:
        await crowd.register(url_of(relay))
        before = {str(log): log.read_bytes() for log in data.glob("*.log")}
        with tracing(relay.process.pid, trace):
            await crowd.send(url_of(relay), -(-acks // len(crowd.senders)))
    return Traced(trace, before, crowd.acked)


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--window", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if reason := why_not_traceable():
        say(f"wal_sync: skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        traced = uvloop.run(
            send_traced(Path(directory).resolve(), acks=given.cycles, window=given.window, seed=given.seed)
        )
        found, blind = traced.judge(), traced.judge(without="fdatasync")
    say(f"  control: {blind.behind_their_sync} of {blind.accepted} pass when the fdatasyncs are left out")
    share = 100 * found.behind_their_sync / max(found.accepted, 1)
    say(
        f"wal_sync: {found.behind_their_sync} of {found.accepted} acks left behind the fdatasync of their log "
        f"({share:.3f} %; {found.syncs} syncs)"
    )
    complete = found.accepted == traced.acked >= given.cycles
    return 0 if complete and found.behind_their_sync == found.accepted and not blind.behind_their_sync else 1


if __name__ == "__main__":
    sys.exit(main())
