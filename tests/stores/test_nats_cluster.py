"""What a relay's promises would rest on: three NATS nodes, configured as deployed, keep what they acknowledged."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import nats
import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig
from nats.js.errors import BadRequestError

from endurance.shared_claims import claim_everything
from support.nats_cluster import NatsCluster, Node, running_cluster

STREAM = "trial"


async def client_of(node: Node, stack: AsyncExitStack) -> JetStreamContext:
    async def quiet(error: Exception) -> None:
        """What is lost on the way is told by the publication itself."""

    connected = await nats.connect(
        node.url, allow_reconnect=True, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet
    )
    stack.push_async_callback(connected.close)
    return connected.jetstream(timeout=60)


async def make_stream(client: JetStreamContext) -> None:
    """Make the stream as soon as every node is there for it: NATS may call one offline that it has just heard of."""
    config = StreamConfig(name=STREAM, subjects=[STREAM], num_replicas=3, storage=StorageType.FILE)
    async with asyncio.timeout(60):
        while True:
            try:
                await client.add_stream(config)
            except BadRequestError as error:
                assert "offline" in str(error)
                await asyncio.sleep(0.1)
            else:
                return


async def published(client: JetStreamContext, key: str, over: asyncio.Event) -> bool:
    """Publish *key*, under one id, until it is acknowledged or all is over; return whether it was."""
    while not over.is_set():
        try:
            await client.publish(STREAM, key.encode(), timeout=2, headers={"Nats-Msg-Id": key})
        except NatsError:
            await asyncio.sleep(0.1)
        else:
            return True
    return False


async def kept(client: JetStreamContext) -> Counter[str]:
    """Return every message of the stream."""
    state = (await client.stream_info(STREAM)).state
    found: Counter[str] = Counter()
    for sequence in range(state.first_seq, state.last_seq + 1):
        message = await client.get_msg(STREAM, sequence)
        assert message.data is not None
        found[message.data.decode()] += 1
    return found


async def kill(cluster: NatsCluster, node: Node) -> Callable[[], Awaitable[None]]:
    await node.kill()
    return node.start


async def freeze(cluster: NatsCluster, node: Node) -> Callable[[], Awaitable[None]]:
    node.freeze()

    async def thaw() -> None:
        node.thaw()

    return thaw


async def cut_off(cluster: NatsCluster, node: Node) -> Callable[[], Awaitable[None]]:
    cluster.cut_off(node)
    async with asyncio.timeout(60):
        while (await node.page("/routez")).get("num_routes") != 0:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)

    async def join_again() -> None:
        cluster.join_again(node)

    return join_again


async def leader_of(cluster: NatsCluster, client: JetStreamContext) -> Node:
    info = (await client.stream_info(STREAM)).cluster
    assert info is not None
    return next(node for node in cluster.nodes if node.name == info.leader)


async def more_than(acked: set[str], enough: int) -> None:
    async with asyncio.timeout(60):
        while len(acked) < enough:  # noqa: ASYNC110 - the publishers tell nobody
            await asyncio.sleep(0.05)


async def test_every_node_syncs_each_write(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        for node in cluster.nodes:
            page = await node.page("/varz")
            jetstream = page["jetstream"]
            assert isinstance(jetstream, dict)
            assert jetstream["config"]["sync_always"] is True


@pytest.mark.parametrize("fault", [kill, freeze, cut_off])
async def test_a_fault_of_the_leader_costs_a_pause_and_nothing_acknowledged(
    tmp_path: Path, fault: Callable[[NatsCluster, Node], Awaitable[Callable[[], Awaitable[None]]]]
) -> None:
    acked: set[str] = set()
    over, numbers = asyncio.Event(), count()

    async def publish_on(client: JetStreamContext) -> None:
        while not over.is_set():
            key = str(next(numbers))
            if await published(client, key, over):
                acked.add(key)

    async with running_cluster(tmp_path) as cluster, AsyncExitStack() as stack:
        clients = [await client_of(node, stack) for node in cluster.nodes]
        await make_stream(clients[0])
        async with asyncio.TaskGroup() as tasks:
            for client in clients:
                tasks.create_task(publish_on(client))
            await more_than(acked, 100)
            undo = await fault(cluster, await leader_of(cluster, clients[0]))
            await more_than(acked, len(acked) + 100)  # the two others go on
            await undo()
            await cluster.healthy()
            await more_than(acked, len(acked) + 100)
            over.set()
        await cluster.agreed(STREAM)
        found = await kept(clients[0])

    assert acked <= found.keys()
    assert [key for key, times in found.items() if times > 1] == []


async def test_two_stores_serve_no_pair_twice_and_give_a_name_to_one(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        found = await claim_everything(cluster, claims=400, rounds=2)

    assert found.clean, found
    assert found.served == 400
