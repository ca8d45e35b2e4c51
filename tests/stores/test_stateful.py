"""Random histories of each store against a plain dictionary; it is closed and opened again at random.

On JetStream two relays take turns, and in some histories the server is killed and started again.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from aimessage.stores.jetstream import Access, open_jetstream_store
from aimessage.stores.memory import open_memory_store
from aimessage.stores.ports import Quotas, Receipt, Store, Stored
from aimessage.stores.rocksdb import open_rocksdb_store, tally
from aimessage.types import Position
from support.nats import NatsServer
from support.stores import NOW, ManualClock, contents, name, number, post

T = TypeVar("T")
QUOTAS = Quotas(messages=6, sender_share=0.5, controls=2)
OWNERS = st.integers(0, 1).map(name)
SENDERS = st.integers(2, 4).map(name)
VALUES = st.integers(1, 12)


class _Machine(RuleBasedStateMachine):
    """The model: for each owner, (sender, id) → (position, control?), in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model: dict[str, dict[tuple[str, bytes], tuple[int, bool]]] = {name(0): {}, name(1): {}}
        self.store = self.run(self.open())

    async def open(self) -> Store:
        return open_memory_store(quotas=QUOTAS, clock=ManualClock())

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    @rule(owner=OWNERS, sender=SENDERS, value=VALUES, control=st.booleans())
    def append(self, owner: str, sender: str, value: int, control: bool) -> None:
        posting = post(value, owner=owner, sender=sender, control=control)  # type: ignore[arg-type]
        [answer] = self.run(self.store.mailboxes.append([posting]))
        box, key = self.model[owner], (sender, bytes(number(value)))
        if key in box:
            assert isinstance(answer, Receipt)
            assert (answer.position, answer.duplicate) == (box[key][0], True)
            return
        if not control:
            messages = [who for (who, _), (_, is_control) in box.items() if not is_control]
            fits = len(messages) < QUOTAS.messages and messages.count(sender) < QUOTAS.messages * QUOTAS.sender_share
            assert isinstance(answer, Receipt) == fits
        if isinstance(answer, Receipt):
            controls = [entry for entry, (_, is_control) in box.items() if is_control]
            if control and len(controls) == QUOTAS.controls:
                del box[controls[0]]
            assert all(answer.position > position for position, _ in box.values())
            box[key] = answer.position, control

    @rule(owner=OWNERS, sender=SENDERS, value=VALUES, wrong=st.booleans())
    def ack(self, owner: str, sender: str, value: int, wrong: bool) -> None:
        key = (sender, bytes(number(value)))
        position, _ = self.model[owner].get(key, (1_000_000, False))
        named = number(99) if wrong else number(value)
        acked = self.run(self.store.mailboxes.ack(owner, [(Position(position), named)]))  # type: ignore[arg-type]
        expected = key in self.model[owner] and not wrong
        assert acked == int(expected)
        if expected:
            del self.model[owner][key]

    @invariant()
    def each_mailbox_holds_what_the_model_holds(self) -> None:
        for owner, box in self.model.items():
            found: list[Stored] = self.run(contents(self.store.mailboxes, owner))  # type: ignore[arg-type]
            held = {(entry.sender, bytes(entry.message_id)): entry.position for entry in found}
            assert held == {key: position for key, (position, _) in box.items()}
            assert [entry.position for entry in found] == sorted(held.values())
            assert all(entry.expires_at > NOW for entry in found)
            assert self.run(self.store.mailboxes.depth(owner))[0] == len(box)  # type: ignore[arg-type]

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()


class _RocksMachine(_Machine):
    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        super().__init__()

    async def open(self) -> Store:
        return await open_rocksdb_store(Path(self.directory.name), quotas=QUOTAS, clock=ManualClock())

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = self.run(self.open())

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


class _JetStreamMachine(_Machine):
    """Two relays on one store take turns; the model is that of one."""

    server: NatsServer
    kills = 0
    most_kills = 2

    def __init__(self) -> None:
        asyncio.run(self.server.empty())
        super().__init__()
        self.other = self.run(self.open())

    async def open(self) -> Store:
        access = Access((self.server.url,), monitors=(self.server.monitor,))
        return await open_jetstream_store(access, quotas=QUOTAS, clock=ManualClock())

    @rule()
    def reopen(self) -> None:
        self.run(self.store.close())
        self.store = self.run(self.open())

    @rule()
    def turn(self) -> None:
        self.store, self.other = self.other, self.store
        self.run(self.other.close())  # what it knew may be old, as to quotas
        self.other = self.run(self.open())

    @rule()
    def kill_the_server(self) -> None:
        if type(self).kills < self.most_kills:
            type(self).kills += 1
            self.server.restart(hard=True)
            self.run(self.until_writable(self.store))
            self.run(self.until_writable(self.other))

    async def until_writable(self, store: Store) -> None:
        async with asyncio.timeout(60):
            while await store.check_writable() is not None:
                pass

    def teardown(self) -> None:
        self.run(self.other.close())
        super().teardown()


_SETTINGS = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestMemory = _Machine.TestCase
TestMemory.settings = _SETTINGS


@pytest.mark.parametrize("at_hand_bytes", [0, 3_100, 16 << 20], ids=["nothing at hand", "some", "all"])
def test_rocksdb(monkeypatch: pytest.MonkeyPatch, at_hand_bytes: int) -> None:
    monkeypatch.setattr(tally, "_AT_HAND_BYTES", at_hand_bytes)
    run_state_machine_as_test(_RocksMachine, settings=_SETTINGS)


def test_jetstream(nats_server: NatsServer) -> None:
    _JetStreamMachine.server = nats_server
    run_state_machine_as_test(
        _JetStreamMachine,
        settings=settings(
            max_examples=30, stateful_step_count=10, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
