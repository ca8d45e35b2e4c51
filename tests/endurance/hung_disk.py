"""A disk that does not answer holds up what has to be written, and nothing else of the relay.

    python tests/endurance/hung_disk.py [--cycles 3] [--seconds 12]

In each cycle the relay's syncs hang for *--seconds*, by strace, with a message waiting for one. Meanwhile others ask.
"""  # fmt: skip

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from aimessage.crypto.random import system_entropy
from aimessage.wire.frames import Accepted, Deliver, ListUsers, MailClass, Post, Refused, Users
from endurance.relays import Lives, say, url_of
from endurance.strace import delaying_syncs, why_not_traceable
from support.commands import Relay
from support.relay import Peer

__all__ = ["Hang", "hang_again_and_again"]

_PAUSE_SECONDS = 0.25


@dataclass
class Hang:
    """What was answered while the disk was not, by a link and by /ready; then what became of the message."""

    answers: int = 0
    silent: int = 0
    said: list[tuple[int, str]] = field(default_factory=list)
    early: bool = False
    accepted: bool = False
    delivered: bool = False

    @property
    def named(self) -> int:
        """How often /ready said that the disk does not answer."""
        return sum(status == 503 and "does not answer" in why for status, why in self.said)

    @property
    def clean(self) -> bool:
        """Whether all who asked were answered and told, and the message waited for its sync and went its way then."""
        return self.answers > 1 and self.named > 0 and not self.silent and self._waited

    @property
    def _waited(self) -> bool:
        return self.accepted and self.delivered and not self.early


async def hang_again_and_again(directory: Path, *, cycles: int, seconds: float) -> list[Hang]:
    """Let the disk hang *cycles* times for *seconds*, more than the five after which /ready tells."""
    with Lives(directory / "data", directory).relay() as relay:
        url = f"{url_of(relay)}/ws"
        async with Peer(url, "alice") as alice, Peer(url, "bobby") as bobby, Peer(url, "carol") as carol:
            for peer in (alice, bobby, carol):
                await peer.register()
            await bobby.subscribe()
            return [await _hang_once(relay, seconds, alice, bobby, carol) for _ in range(cycles)]


async def _hang_once(relay: Relay, seconds: float, alice: Peer, bobby: Peer, carol: Peer) -> Hang:
    hang, is_over = Hang(), asyncio.Event()

    async def ask() -> None:
        while not is_over.is_set() and not hang.silent:
            carol.send(ListUsers(carol.next_id()))
            try:
                async with asyncio.timeout(seconds / 2):
                    await carol.expect(Users)
                    hang.said.append(await asyncio.to_thread(relay.ready))
            except OSError:  # a time-out is one too
                hang.silent += 1
            else:
                hang.answers += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    with delaying_syncs(relay.process.pid, seconds):
        alice.send(Post(alice.next_id(), "bobby", system_entropy(16), 0, int(MailClass.MESSAGE), 0, bytes(400)))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask())
            answer = tasks.create_task(alice.expect(Accepted, Refused))
            delivery = tasks.create_task(bobby.expect(Deliver))
            done, _ = await asyncio.wait([answer, delivery], timeout=seconds / 2)
            hang.early = bool(done)
            hang.accepted = isinstance(await answer, Accepted)
            is_over.set()
            hang.delivered = isinstance(await delivery, Deliver)
    return hang


def main() -> int:
    """Run at the size that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0)
    given = parser.parse_args()
    if reason := why_not_traceable():
        say(f"hung_disk: skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        found = uvloop.run(hang_again_and_again(Path(directory), cycles=given.cycles, seconds=given.seconds))
    say(
        f"hung_disk: {len(found)} syncs hung for {given.seconds:g} s each; meanwhile {sum(it.answers for it in found)} "
        f"times another link and /ready answered, {sum(it.named for it in found)} times that the disk does not, and "
        f"{sum(it.silent for it in found)} times nobody; accepted or delivered before the sync: "
        f"{sum(it.early for it in found)}, behind it: {sum(it.accepted and it.delivered for it in found)}"
    )
    return 0 if all(it.clean for it in found) else 1


if __name__ == "__main__":
    sys.exit(main())
