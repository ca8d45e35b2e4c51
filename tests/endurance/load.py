"""Several senders and recipients together, and the verdict on what the relay did with their mail."""

import asyncio
from dataclasses import dataclass
from random import Random

from aimessage.types import VaultId
from endurance.parties import Recipient, Sender, until_cut

__all__ = ["Crowd", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the parties found: the figures that the bars ask for."""

    acked: int
    lost: int
    twice: int
    inversions: int
    altered: int
    found_again: int  # repeated by the sender and known to the relay
    copies: int  # repeated by the sender, stored again, applied once by the recipient

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, doubled, out of order or altered."""
        return not (self.lost or self.twice or self.inversions or self.altered)

    def __str__(self) -> str:
        return (
            f"lost {self.lost}, twice {self.twice}, inversions {self.inversions}, altered {self.altered} "
            f"of {self.acked} acked ({self.found_again} repeats found stored, {self.copies} applied once)"
        )


class Crowd:
    """Several senders, each writing to several recipients."""

    def __init__(
        self, *, senders: int = 3, recipients: int = 3, size: int = 200, window: int = 200, seed: int = 1
    ) -> None:
        random = Random(seed)
        names = tuple(f"recipient-{number}" for number in range(recipients))
        self.senders = [
            Sender(f"sender-{index}", random.randbytes(32), VaultId(random.randbytes(16)), False, index, names, size,
                   window)
            for index in range(senders)
        ]  # fmt: skip
        self.recipients = [
            Recipient(name, random.randbytes(32), VaultId(random.randbytes(16)), random=Random(seed), size=size)
            for name in names
        ]

    @property
    def acked(self) -> int:
        """How many messages the relay has accepted."""
        return sum(len(sender.acked) for sender in self.senders)

    async def register(self, url: str) -> None:
        """Make every recipient known; before that a post to it is refused."""
        for party in [*self.recipients, *self.senders]:
            async with party.link(url):
                pass

    def start(self, url: str, tasks: asyncio.TaskGroup, *, receive: bool = True) -> list[asyncio.Task[None]]:
        """Start every party in *tasks*; each ends with its link."""
        runs = [sender.run(url) for sender in self.senders]
        runs += [recipient.run(url) for recipient in self.recipients if receive]
        return [tasks.create_task(until_cut(run)) for run in runs]

    async def send(self, url: str, count: int) -> None:
        """Have each sender send and get accepted *count* more."""
        for sender in self.senders:
            sender.limit = len(sender.acked) + count
        await asyncio.gather(*(sender.run(url) for sender in self.senders))
        for sender in self.senders:
            sender.limit = None

    async def collect(self, url: str) -> None:
        """Have every recipient see everything that waits for it."""
        await asyncio.gather(*(recipient.run(url, until_caught_up=True) for recipient in self.recipients))

    async def waiting(self, url: str) -> int:
        """Return how many messages the relay still keeps for the recipients."""
        return sum([await recipient.count_waiting(url) for recipient in self.recipients])

    def verdict(self) -> Verdict:
        """Judge; call it behind `collect`."""
        seen = {key for recipient in self.recipients for key in recipient.seen}
        acked = {(sender.name, message_id) for sender in self.senders for message_id in sender.acked}
        return Verdict(
            acked=len(acked),
            lost=len(acked - seen),
            twice=sum(recipient.twice for recipient in self.recipients) + self._doubled_without_a_repeat(),
            inversions=sum(recipient.inversions for recipient in self.recipients),
            altered=sum(recipient.altered for recipient in self.recipients),
            found_again=sum(sender.duplicates for sender in self.senders),
            copies=sum(len(positions) - 1 for recipient in self.recipients for positions in recipient.seen.values()),
        )

    def _doubled_without_a_repeat(self) -> int:
        """Count the ids that went out once and lay in the mailbox at two positions."""
        once = {
            (sender.name, letter.message_id)
            for sender in self.senders
            for letter in sender.letters.values()
            if letter.posted == 1
        }
        return sum(
            len(positions) > 1 and key in once
            for recipient in self.recipients
            for key, positions in recipient.seen.items()
        )
