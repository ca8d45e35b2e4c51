"""A relay that lets us in and then breaks the protocol: nothing is lost, and nothing grows without a bound."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from aimessage.client import Settings, connect, register
from aimessage.client.account import open_here
from aimessage.client.connection import log_in
from aimessage.client.profile import load_profile
from aimessage.errors import NotARelay
from aimessage.types import RelayId
from aimessage.wire.frames import ClientFrame, PairsLow, Prove, Proved, Welcome
from aimessage.wire.limits import Limits
from aimessage.wire.link import RelayLink
from support.relay import running_relay

Then = Callable[[RelayLink, ClientFrame], bytes | None]


class Hostile(WSListener):
    """Greets as the pinned relay does, believes every proof, and then does what the test says."""

    def __init__(self, relay_id: RelayId, then: Then) -> None:
        self._link = RelayLink()
        self._relay_id = relay_id
        self._then = then

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._link.greet(Welcome(bytes(32), self._relay_id, "hostile", "0", 0, Limits(requests_per_second=0), []))
        self._flush(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.BINARY:
            return
        self._link.receive_message(frame.get_payload_as_bytes())
        for event in self._link.events_received():
            if isinstance(event, Prove):
                self._link.admit(Proved(0, 0, b""))
            raw = self._then(self._link, event)  # type: ignore[arg-type]  # only frames that we know come here
            self._flush(transport)
            if raw is not None:
                transport.send(WSMsgType.BINARY, raw)

    def _flush(self, transport: WSTransport) -> None:
        for message in self._link.data_to_send():
            transport.send(WSMsgType.BINARY, message)


@asynccontextmanager
async def hostile(relay_id: RelayId, then: Then, subprotocol: str | None = "aimessage.v1") -> AsyncIterator[str]:
    headers = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol is not None else None

    def accept(_: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), Hostile(relay_id, then))

    server = await ws_create_server(accept, "127.0.0.1", 0, use_aiofastnet=False)
    yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()


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
        async with asyncio.timeout(30):
            link = (await log_in(flooded, pushes.put_nowait)).link
            assert isinstance(await link.lost, NotARelay)
        assert pushes.full()
    here.vault.close()
