"""Floods from several addresses over real sockets, on a relay whose clock the test winds: what gets through, how fast.

So rates are exact, however slow the machine is: each step is a lot of requests and then a moment of the relay's time.
"""

import asyncio
from pathlib import Path

from aimessage.crypto.random import system_entropy
from aimessage.relay.service import serving
from aimessage.wire.frames import BundleAnswer, FetchBundle, Proved, Refused
from support.relay import HOST, Peer, relay_config
from support.sockets import OTHER, status_of
from support.stores import ManualClock

FLOODERS = ("127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14")


def most_within(served: list[int], steps: int) -> int:
    """Return the largest sum of *served* over so many steps that follow each other."""
    return max(sum(served[at : at + steps]) for at in range(len(served)))


async def test_a_flood_from_many_addresses_gets_the_set_rate_and_a_bystander_is_served(tmp_path: Path) -> None:
    rate, step, steps = 50, 0.05, 60
    clock = ManualClock()
    served, bystander = [], []
    config = relay_config(tmp_path, rate_global=str(rate))
    async with serving(config, clock=clock, entropy=system_entropy) as service:
        url = f"http://{HOST}:{service.port}"
        for at in range(steps):
            if at % 10 == 0:
                bystander.append(await status_of(url, OTHER))
            statuses = await asyncio.gather(*(status_of(url, source) for source in FLOODERS for _ in range(4)))
            served.append(statuses.count(404))
            clock.seconds += step
        refused = service.metrics.limits["http_rate"]

    in_a_second = round(1 / step)
    assert set(bystander) == {404}
    assert most_within(served, in_a_second) <= rate
    # The share of the bystander, who hardly asks, stays free: four times nine of fifty.
    assert rate * 0.7 <= sum(served[in_a_second:]) / (steps * step - 1) <= rate * 1.1
    assert refused == steps * 16 - sum(served)


async def test_a_flood_of_registrations_from_many_addresses_gets_the_set_rate_each(tmp_path: Path) -> None:
    limit, minutes = 3, 25
    clock = ManualClock()
    served: dict[str, list[int]] = {source: [] for source in FLOODERS[:3]}
    config = relay_config(tmp_path, registrations=str(limit))

    async def registers(name: str, source: str) -> bool:
        async with Peer(url, name, source=source) as peer:
            return isinstance(await peer.register(), Proved)

    async with serving(config, clock=clock, entropy=system_entropy) as service:
        url = f"ws://{HOST}:{service.port}"
        for minute in range(minutes):
            for number, (source, taken) in enumerate(served.items()):
                names = [f"flood-{number}-{minute}-{value}" for value in range(3)]
                taken.append(sum(await asyncio.gather(*(registers(name, source) for name in names))))
            clock.seconds += 60
        assert await registers("bystander", OTHER)
        refused = service.metrics.limits["registrations"]

    for taken in served.values():
        assert most_within(taken, 10) <= limit
        assert sum(taken) >= 2 * limit  # and no less than was promised
    assert refused == 3 * 3 * minutes - sum(map(sum, served.values()))


async def test_a_flood_of_look_ups_over_several_links_gets_the_rate_of_its_identity(tmp_path: Path) -> None:
    limit, step, steps = 20, 3.0, 60
    clock = ManualClock()
    served, bystander = [], []
    config = relay_config(tmp_path, lookups=str(limit))

    async def looks_up(peer: Peer) -> bool:
        peer.send(FetchBundle(peer.next_id(), "bobby", claim_pair=False))
        return isinstance(await peer.expect(BundleAnswer, Refused), BundleAnswer)

    async with serving(config, clock=clock, entropy=system_entropy) as service:
        url = f"ws://{HOST}:{service.port}"
        async with Peer(url, "alice") as alice, Peer(url, "bobby") as bobby:
            await alice.register()
            await bobby.register()
            async with (
                Peer(url, "alice", alice.secret, source=OTHER) as second,
                Peer(url, "alice", alice.secret, source=FLOODERS[0]) as third,
            ):
                await second.login()
                await third.login()
                for at in range(steps):
                    flood = [await asyncio.gather(*map(looks_up, (alice, second, third))) for _ in range(2)]
                    served.append(sum(map(sum, flood)))
                    if at % 4 == 0:
                        bystander.append(await looks_up(bobby))
                    clock.seconds += step

    in_a_minute = round(60 / step)
    assert all(bystander)
    assert most_within(served, in_a_minute) <= limit
    assert limit * 0.8 <= sum(served[in_a_minute:]) / (steps * step / 60 - 1) <= limit * 1.1
