"""Turns: one flow at a time, in order; who need not wait any more is spared; who is cancelled blocks nobody."""

import asyncio
from contextlib import suppress

import pytest

from aimessage.client.waiting import OnLoop
from aimessage.errors import VaultUnavailable


class Stage:
    """Flows that take turns under one name, and what they did, in order."""

    def __init__(self) -> None:
        self.waiting = OnLoop()
        self.told: list[str] = []
        self.over = asyncio.Event()

    async def flow(self, who: str) -> None:
        async with self.waiting.turn("send", key=who.encode()) as is_mine:
            self.told.append(f"{who} {'has it' if is_mine else 'is spared'}")
            if is_mine:
                await self.over.wait()

    async def begin(self, *names: str) -> list["asyncio.Task[None]"]:
        flows = [asyncio.create_task(self.flow(name)) for name in names]
        await asyncio.sleep(0)
        return flows


async def test_flows_take_turns_in_order() -> None:
    stage = Stage()
    flows = await stage.begin("a", "b", "c")
    assert stage.told == ["a has it"]
    stage.over.set()
    await asyncio.gather(*flows)
    assert stage.told == ["a has it", "b has it", "c has it"]


async def test_who_is_spared_goes_on_at_once_while_the_others_wait() -> None:
    stage = Stage()
    flows = await stage.begin("a", "b", "c", "d")
    stage.waiting.spare("send", {b"b", b"d", b"nobody"})
    await flows[1]
    await flows[3]
    assert stage.told == ["a has it", "b is spared", "d is spared"]
    stage.over.set()
    await asyncio.gather(*flows)
    assert stage.told[3:] == ["c has it"]


@pytest.mark.parametrize("is_handed_over", [True, False])
async def test_a_cancelled_flow_holds_up_nobody(is_handed_over: bool) -> None:
    stage = Stage()
    stage.over.set()
    async with stage.waiting.turn("send"):
        second, third = await stage.begin("b", "c")
        if not is_handed_over:
            second.cancel()
    second.cancel()  # in the moment in which the turn is handed to it, if it was not before
    await third
    with suppress(asyncio.CancelledError):
        await second
    assert stage.told == ["c has it"]
    await asyncio.gather(*await stage.begin("d"))  # and nothing is left behind


async def test_the_impatient_are_told_that_it_is_taken() -> None:
    stage = Stage()
    flows = await stage.begin("a")
    with pytest.raises(VaultUnavailable):
        stage.waiting.turn("send", patient=False)
    stage.over.set()
    await asyncio.gather(*flows)
    async with stage.waiting.turn("send", patient=False) as is_mine:
        assert is_mine
