"""One store of each kind, opened anew for each test."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from aimessage.stores.jetstream import Access, open_jetstream_store
from aimessage.stores.memory import open_memory_store
from aimessage.stores.ports import Quotas, Store
from aimessage.stores.rocksdb import open_rocksdb_store, tally
from support.nats import NatsServer
from support.stores import ManualClock

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats")).start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "rocksdb", "rocksdb, nothing at hand", "jetstream"])
async def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OpenStore]:
    if "nothing at hand" in request.param:
        monkeypatch.setattr(tally, "_AT_HAND_BYTES", 0)
    async with AsyncExitStack() as stack:
        server: NatsServer | None = None
        if request.param == "jetstream":
            server = request.getfixturevalue("nats_server")
            await server.empty()

        async def opened(**bounds: float) -> Store:
            quotas = Quotas(**bounds)  # type: ignore[arg-type]
            store: Store = open_memory_store(quotas=quotas, clock=clock)
            if request.param.startswith("rocksdb"):
                store = await open_rocksdb_store(tmp_path / "store", quotas=quotas, clock=clock)
            if server is not None:
                store = await open_jetstream_store(
                    Access((server.url,), monitors=(server.monitor,)), quotas=quotas, clock=clock
                )
            stack.push_async_callback(store.close)
            return store

        yield opened


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()
