"""A bell for one listener: no ring is lost, whenever it comes."""

import asyncio

from aimessage.relay.bell import Bell


async def test_a_ring_before_anybody_listens_is_heard() -> None:
    bell = Bell()
    bell.ring()
    await bell.heard()
    await bell.heard()  # it stays rung


async def test_a_ring_wakes_the_listener_and_a_muffled_bell_waits_for_the_next() -> None:
    bell, heard = Bell(), 0

    async def listen() -> None:
        nonlocal heard
        for _ in range(3):
            await bell.heard()
            bell.muffle()
            heard += 1

    listening = asyncio.create_task(listen())
    for expected in (1, 2, 3):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert heard == expected - 1
        bell.ring()
        bell.ring()
        while heard < expected:  # noqa: ASYNC110 - the turns of the loop are what is tested
            await asyncio.sleep(0)
    await listening


async def test_a_cancelled_listener_leaves_the_bell_to_the_next() -> None:
    bell = Bell()
    gone = asyncio.create_task(bell.heard())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    following = asyncio.create_task(bell.heard())
    await asyncio.sleep(0)
    bell.ring()
    await following
