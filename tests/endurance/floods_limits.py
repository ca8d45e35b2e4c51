"""How fast floods of handshakes and pages get through a relay with its default limits, and what a bystander sees.

    python tests/endurance/floods_limits.py --seconds 20

Several loopback addresses ask as fast as they can; another one registers and sends. Prints rates, RSS and descriptors
before and after, and the bystander's latencies. Exits with 1 if more than the set rate and a tenth got through, or the
bystander was refused anything.
"""  # fmt: skip
# ruff: noqa: T201

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.crypto.random import system_entropy
from aimessage.wire.frames import Accepted, Post, Proved
from support.commands import Relay, running_relay
from support.relay import HOST, Peer
from support.sockets import OTHER, status_of

RATE = 100
FLOODERS = ("127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14")
AT_ONCE = 8  # sockets of each
BYSTANDER_PAUSE = 0.5


class Tally:
    """What was answered, and how long the bystander waited, in seconds."""

    def __init__(self) -> None:
        self.served = 0
        self.refused = 0
        self.cut = 0
        self.waits: list[float] = []
        self.troubles: list[str] = []


def resources(relay: Relay) -> tuple[int, int]:
    """Return the relay's resident KiB and its open descriptors."""
    proc = Path(f"/proc/{relay.process.pid}")
    return int((proc / "status").read_text().split("VmRSS:")[1].split()[0]), len(os.listdir(proc / "fd"))  # noqa: PTH208


async def flood(url: str, source: str, until: float, tally: Tally) -> None:
    """Ask for a page that does not exist, again and again."""
    while time.monotonic() < until:
        try:
            status = await status_of(url, source)
        except (OSError, IndexError, TimeoutError):
            tally.cut += 1
            continue
        if status == 404:
            tally.served += 1
        else:
            tally.refused += 1


async def bystander(url: str, until: float, tally: Tally) -> None:
    """Log in anew and send oneself a message, from an address of one's own."""
    secret = system_entropy(32)
    registered = False
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            async with Peer(url, "bystander", secret, source=OTHER) as peer:
                proved = await (peer.login() if registered else peer.register())
                if not isinstance(proved, Proved):
                    tally.troubles.append(proved.code)
                    continue
                registered = True
                peer.send(Post(peer.next_id(), "bystander", system_entropy(16), 0, 0, 0, b"sealed"))
                await peer.expect(Accepted)
        except Exception as error:  # noqa: BLE001  # whatever it was, the bystander was not served
            tally.troubles.append(type(error).__name__)
        tally.waits.append(time.monotonic() - began)
        await asyncio.sleep(BYSTANDER_PAUSE)


async def run(relay: Relay, seconds: float) -> Tally:
    """Flood for so long."""
    url, tally = f"ws://{HOST}:{relay.port}", Tally()
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(bystander(url, until, tally))
        for source in FLOODERS:
            for _ in range(AT_ONCE):
                tasks.create_task(flood(url, source, until, tally))
    return tally


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    with (
        tempfile.TemporaryDirectory() as directory,
        running_relay(Path(directory), "--rate-global", str(RATE)) as relay,
    ):
        before = resources(relay)
        tally = asyncio.run(run(relay, seconds))
        after = resources(relay)
    waits = sorted(tally.waits) or [0.0]
    rate = tally.served / seconds
    print(f"asked {(tally.served + tally.refused + tally.cut) / seconds:.0f}/s, served {rate:.1f}/s of {RATE}/s")
    print(f"refused with an answer {tally.refused}, cut off {tally.cut}")
    print(f"bystander: {len(waits)} log-ins with a message, median {waits[len(waits) // 2] * 1000:.0f} ms,"
          f" longest {waits[-1] * 1000:.0f} ms, not served: {tally.troubles or 'never'}")  # fmt: skip
    print(f"RSS {before[0]} -> {after[0]} KiB, descriptors {before[1]} -> {after[1]}")
    return int(rate > RATE * 1.1 or bool(tally.troubles))


if __name__ == "__main__":
    sys.exit(main())
