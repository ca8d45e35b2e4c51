"""Two agents and a relay under loss, duplication, reordering, crash and restore, checked against a plain list.

What is promised: a message of a living vault is shown once and in order, or its fate is told; what a lost vault had
sent is shown at most once; nothing counts as delivered that was never taken in.
"""

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from aimessage.types import MessageId
from support.island import Island, Islander

NAMES = st.sampled_from(["alice", "bobby"])
OTHER = {"alice": "bobby", "bobby": "alice"}


@dataclass
class Saved:
    """One message as the plain list has it: who wrote it in which life, and in which life of the reader."""

    sender: str
    life: int
    text: str
    id: MessageId


class Conversation(RuleBasedStateMachine):
    """The network is two lists; every step may go wrong."""

    @initialize()
    def begin(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.island = Island()
        root = Path(self._directory.name)
        self.agents = {name: Islander(name, root, self.island) for name in OTHER}
        self.saved: list[Saved] = []
        self.dropped = False  # whether the relay has ever lost anything

    @rule(name=NAMES, count=st.integers(1, 3))
    def save(self, name: str, count: int) -> None:
        for _ in range(count):
            text = f"{name} {len(self.saved)}"
            message_id = self.agents[name].save(OTHER[name], text)
            self.saved.append(Saved(name, self.agents[name].lives, text, message_id))

    @rule(name=NAMES, lost_at=st.none() | st.integers(0, 3), lost_after=st.booleans())
    def flush(self, name: str, lost_at: int | None, lost_after: bool) -> None:
        self.agents[name].flush(lost_at, lost_after=lost_after)

    @rule(name=NAMES, random=st.randoms(use_true_random=False), acknowledged=st.booleans())
    def deliver(self, name: str, random: Random, acknowledged: bool) -> None:
        mailbox = self.island.mailboxes.get(name, [])
        chosen = [each for each in mailbox if random.random() < 0.7]
        arriving = chosen + [each for each in chosen if random.random() < 0.3]
        random.shuffle(arriving)
        done = self.agents[name].receive(arriving)
        if acknowledged:
            self.island.mailboxes[name] = [each for each in mailbox if each not in done]

    @rule(name=NAMES, at=st.integers(0, 5))
    def drop(self, name: str, at: int) -> None:
        mailbox = self.island.mailboxes.get(name, [])
        if at < len(mailbox):
            del mailbox[at]
            self.dropped = True

    @rule(name=NAMES)
    def crash(self, name: str) -> None:
        self.agents[name].crash()

    @rule(name=NAMES)
    def lose_vault(self, name: str) -> None:
        self.agents[name].lose_vault()

    @rule(seconds=st.sampled_from([1, 31, 61, 3601]))
    def time_passes(self, seconds: int) -> None:
        self.island.clock.pass_by(timedelta(seconds=seconds))

    @rule(name=NAMES)
    def read(self, name: str) -> None:
        self.agents[name].read()

    def teardown(self) -> None:
        if not hasattr(self, "agents"):
            return
        try:
            self._settle()
            self._judge()
            self._end_of_time()
        finally:
            for agent in self.agents.values():
                agent.here.close()
            self._directory.cleanup()

    def _settle(self) -> None:
        """The network is good from now on; both run until nothing moves."""
        for _ in range(8):
            for name, agent in self.agents.items():
                agent.flush()
                mailbox = self.island.mailboxes.get(name, [])
                done = agent.receive(mailbox)
                self.island.mailboxes[name] = [each for each in mailbox if each not in done]
                agent.read()
            self.island.clock.pass_by(timedelta(seconds=3601))
        assert not any(self.island.mailboxes.values())

    def _judge(self) -> None:
        for name, agent in self.agents.items():
            shown = [message for message in agent.shown if message.type == "message"]
            texts = [str(message.text) for message in shown]
            ours = [each for each in self.saved if each.sender == OTHER[name]]
            assert set(texts) <= {each.text for each in ours}
            if agent.lives == 0:
                assert len(texts) == len(set(texts)), "twice in effect"
            for each in ours:
                self._judge_one(each, each.text in texts)
            in_order = [text for text, message in zip(texts, shown, strict=True) if "late" not in message.flags]
            if agent.lives == 0 and self.agents[OTHER[name]].lives == 0:
                assert in_order == sorted(in_order, key=lambda text: int(text.split()[1]))

    def _judge_one(self, each: Saved, was_shown: bool) -> None:
        sender, reader = self.agents[each.sender], self.agents[OTHER[each.sender]]
        if each.life != sender.lives:
            return  # its vault is gone: it may have left before, or not
        fate = sender.fate(each.id)
        assert fate in ("accepted", "delivered", "read", "undecryptable")
        if was_shown:
            return
        if reader.lives == 0:
            assert self.dropped, "lost, and the relay has lost nothing"
            assert fate in ("accepted", "undecryptable"), "told as delivered, and nobody saw it"
        elif not self.dropped and each.id not in reader.forgotten:
            assert fate == "undecryptable", "neither healed nor told"

    def _end_of_time(self) -> None:
        """A month later every message of a living vault has ended."""
        self.island.clock.pass_by(timedelta(days=31))
        for each in self.saved:
            sender = self.agents[each.sender]
            if each.life == sender.lives:
                sender.look_at_the_clock()
                assert sender.fate(each.id) in ("delivered", "read", "expired", "undecryptable")


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def run_schedule(seed: int, steps: int = 40) -> None:
    """Run one schedule in which much is said, so that much can go wrong; vaults are lost under odd seeds only."""
    random = Random(seed)
    machine = Conversation()
    machine.begin()
    rules = ("save", "flush", "deliver", "read", "time_passes", "crash", "drop", "lose_vault")
    weights = (5, 6, 6, 3, 2, 2, seed % 3 == 0, seed % 2)
    for _ in range(steps):
        name = random.choice(("alice", "bobby"))
        match random.choices(rules, weights)[0]:
            case "save":
                machine.save(name, random.randint(1, 3))
            case "flush":
                machine.flush(name, random.choice((None, None, 0, 1, 2, 3)), random.random() < 0.5)
            case "deliver":
                machine.deliver(name, random, random.random() < 0.7)
            case "drop":
                machine.drop(name, random.randint(0, 5))
            case "time_passes":
                machine.time_passes(random.choice((1, 31, 61, 3601)))
            case other:
                getattr(machine, other)(name)
    machine.teardown()


@pytest.mark.parametrize("seed", range(40))
def test_a_busy_schedule_keeps_the_promises(seed: int) -> None:
    run_schedule(seed)
