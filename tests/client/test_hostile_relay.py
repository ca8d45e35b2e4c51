"""A relay that lets us in and then breaks the protocol: nothing is lost, and nothing grows without a bound."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from aimessage.client import Settings, connect, register
from aimessage.client.account import open_here
from aimessage.client.connection import log_in
from aimessage.client.profile import load_profile
from aimessage.errors import NotARelay
from aimessage.wire.frames import ClientFrame, PairsLow, Prove
from aimessage.wire.link import RelayLink
from support.hostile import hostile
from support.relay import running_relay


@pytest.mark.parametrize("subprotocol", [None, "aimessage.v2", "chat"])
async def test_what_does_not_choose_our_subprotocol_is_no_relay_whatever_it_says_then(
    tmp_path: Path, subprotocol: str | None
) -> None:
    async with running_relay(tmp_path) as url:
        alice = Settings(tmp_path / "home", "alice", url)
        await register(alice, "alice")
    async with (
        hostile(load_profile(alice).relay_id, lambda _link, _frame: None, subprotocol) as evil,
        connect(replace(alice, server=evil)) as me,
    ):
        with pytest.raises(NotARelay, match=r"not aimessage\.v1"):
            await me.users()


async def test_a_message_in_flight_when_the_relay_breaks_the_protocol_is_kept_and_arrives_once(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        alice, bobby = (Settings(tmp_path / "home", name, url) for name in ("alice", "bobby"))
        for each in (alice, bobby):
            await register(each, each.agent)
        async with connect(alice) as me:
            await me.send("bobby", "before")
        relay_id = load_profile(alice).relay_id

        def break_it(_: RelayLink, event: ClientFrame) -> bytes | None:
            return None if isinstance(event, Prove) else b"\xc1"

        async with hostile(relay_id, break_it) as evil, connect(replace(alice, server=evil)) as me:
            with pytest.raises(NotARelay) as caught:
                await me.send("bobby", "in flight")
        assert caught.value.message_id
        async with connect(alice) as me:
            await me.send("bobby", "after")
        async with connect(bobby) as me:
            came = [(message.id, message.text) async for message in me.listen(count=3)]
        assert [text for _, text in came] == ["before", "in flight", "after"]
        assert came[1][0] == caught.value.message_id


async def test_a_relay_that_floods_us_loses_the_link(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        alice = Settings(tmp_path / "home", "alice", url)
        await register(alice, "alice")

    def flood(link: RelayLink, _: ClientFrame) -> bytes | None:
        for _batch in range(20):
            link.send([PairsLow(30)] * 256)
        return None

    here = open_here(load_profile(alice), None)
    async with hostile(here.profile.relay_id, flood) as evil:
        pushes: asyncio.Queue[object] = asyncio.Queue(4096)
        flooded = replace(here, profile=replace(here.profile, server=evil))
        async with asyncio.timeout(60):
            link = (await log_in(flooded, pushes.put_nowait)).link
            assert isinstance(await link.lost, NotARelay)
        assert pushes.full()
    here.vault.close()
