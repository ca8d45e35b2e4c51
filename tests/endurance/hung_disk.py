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

__all__ = ["Hangs", "hang_again_and_again"]

_PAUSE_SECONDS = 0.25


@dataclass
class Hangs:
    """What was answered while the disk was not, by a link and by /ready."""

    cycles: int = 0
    links_answers: int = 0
    said: list[tuple[int, str]] = field(default_factory=list)
    accepted: int = 0
    delivered: int = 0
    early: int = 0

    @property
    def named(self) -> int:
        """How often /ready said that the disk does not answer."""
        return sum(status == 503 and "does not answer" in why for status, why in self.said)

    @property
    def clean(self) -> bool:
        """Whether others were answered in each cycle, and the message waited for its sync and went its way then."""
        return (
            min(self.links_answers, self.named) >= self.cycles
            and self.accepted == self.delivered == self.cycles
            and not self.early
        )


async def hang_again_and_again(directory: Path, *, cycles: int, seconds: float) -> Hangs:
    """Let the disk hang *cycles* times for *seconds*, more than the five after which /ready tells."""
    found = Hangs()
    with Lives(directory / "data", directory).relay() as relay:
        url = f"{url_of(relay)}/ws"
        async with Peer(url, "alice") as alice, Peer(url, "bobby") as bobby, Peer(url, "carol") as carol:
            for peer in (alice, bobby, carol):
                await peer.register()
            await bobby.subscribe()
            for _ in range(cycles):
                found.cycles += 1
                await _hang_once(relay, seconds, alice, bobby, carol, found)
    return found


async def _hang_once(relay: Relay, seconds: float, alice: Peer, bobby: Peer, carol: Peer, found: Hangs) -> None:
    async def ask() -> None:
        while True:
            carol.send(ListUsers(carol.next_id()))
            await carol.expect(Users)
            found.links_answers += 1
            found.said.append(await asyncio.to_thread(relay.ready))
            await asyncio.sleep(_PAUSE_SECONDS)

    with delaying_syncs(relay.process.pid, seconds):
        alice.send(Post(alice.next_id(), "bobby", system_entropy(16), 0, int(MailClass.MESSAGE), 0, bytes(400)))
        async with asyncio.TaskGroup() as tasks:
            asking, answer = tasks.create_task(ask()), tasks.create_task(alice.expect(Accepted, Refused))
            delivery = tasks.create_task(bobby.expect(Deliver))
            done, _ = await asyncio.wait([answer, delivery], timeout=seconds / 2)
            found.early += len(done)
            found.accepted += isinstance(await answer, Accepted)
            asking.cancel()
            await delivery
            found.delivered += 1


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
        f"hung_disk: {found.cycles} syncs hung for {given.seconds:g} s each; meanwhile {found.links_answers} requests "
        f"of another link and {len(found.said)} of /ready answered, {found.named} times that the disk does not; "
        f"accepted or delivered before the sync: {found.early}, behind it: {found.accepted} and {found.delivered}"
    )
    return 0 if found.clean else 1


if __name__ == "__main__":
    sys.exit(main())
