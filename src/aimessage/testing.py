"""For the tests of whoever builds on AI Message: a relay of one's own and agents at it, real from end to end.

Nothing is imitated: the relay is the one that `aimessage-server` runs, with its memory store, on a loopback port that
the system chooses; the agents are registered and seal what they send. All of it is gone when the context ends.
"""

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from aimessage import client, sync
from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.relay.config import RelayConfig, load_config
from aimessage.relay.service import serving
from aimessage.sync.worker import Worker

__all__ = ["Network", "agents", "pair"]

_HOST = "127.0.0.1"


class Network:
    """`async with Network() as network:` or `with Network() as network:` runs a relay and gives agents a home.

    What the one form opens, only its own methods may use: `join` for the first, `join_blocking` for the second.
    """

    def __init__(self) -> None:
        self._root: Path | None = None
        self._url: str | None = None
        self._worker: Worker | None = None
        self._open = AsyncExitStack()
        self._blocking = ExitStack()

    @property
    def server(self) -> str:
        """The relay's address."""
        if self._url is None:
            raise RuntimeError("the network is used outside its context")
        return self._url

    @property
    def home(self) -> Path:
        """The directory that is these agents' `~/.aimessage`."""
        if self._root is None:
            raise RuntimeError("the network is used outside its context")
        return self._root / "home"

    @property
    def environ(self) -> Mapping[str, str]:
        """What makes the commands, and `aimessage.connect(agent=…)`, use this relay and these agents."""
        return {"AIMESSAGE_HOME": str(self.home), "AIMESSAGE_SERVER": self.server}

    def settings(self, name: str) -> client.Settings:
        """Return the settings of the agent *name*, registered or not."""
        return client.Settings(home=self.home, agent=name, server=self.server)

    async def join(self, name: str) -> client.Agent:
        """Register *name* if nobody has yet, and open it until the network ends. Raises what `register` does."""
        await client.register(self.settings(name), name, if_not_exists=True)
        return await self._open.enter_async_context(client.connect(self.settings(name)))

    def join_blocking(self, name: str) -> sync.Agent:
        """Do the same, for blocking code."""
        sync.register(self.settings(name), name, if_not_exists=True)
        return self._blocking.enter_context(sync.connect(self.settings(name)))

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            self._clear()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._open.__aexit__(kind, error, trace)
        finally:
            self._clear()

    def __enter__(self) -> Self:
        self._worker = Worker()
        try:
            self._worker.run(self._start())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._blocking.__exit__(kind, error, trace)
        finally:
            self._stop()

    async def _start(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="aimessage-"))
        config = _relay_config(self._root)
        service = await self._open.enter_async_context(serving(config, clock=SystemClock(), entropy=system_entropy))
        self._url = f"ws://{_HOST}:{service.port}"

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        try:
            if worker is not None:
                worker.run(self._open.aclose())
        finally:
            if worker is not None:
                worker.close()
            self._clear()

    def _clear(self) -> None:
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
        self._root = self._url = None


def _relay_config(root: Path) -> RelayConfig:
    """A relay without rates: a test may do as much as it likes. Quotas and sizes are those of every relay."""
    flags = {"host": _HOST, "port": "0", "store": "memory", "db_path": str(root / "relay")}
    unlimited = dict.fromkeys(("rate_global", "rate_connection", "registrations"), "0")
    return load_config(flags | unlimited, {})


class agents:  # noqa: N801 - used as a function, like open()
    """`async with agents("planner", "worker-1") as (planner, worker):` gives agents that can write to each other.

    The same with plain `with` gives blocking ones. *network* is where more agents can join.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self.network = Network()

    async def __aenter__(self) -> tuple[client.Agent, ...]:
        await self.network.__aenter__()
        try:
            return tuple([await self.network.join(name) for name in self._names])
        except BaseException:
            await self.network.__aexit__(None, None, None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.network.__aexit__(kind, error, trace)

    def __enter__(self) -> tuple[sync.Agent, ...]:
        self.network.__enter__()
        try:
            return tuple([self.network.join_blocking(name) for name in self._names])
        except BaseException:
            self.network.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.network.__exit__(kind, error, trace)


class pair(agents):  # noqa: N801 - used as a function, like open()
    """`async with pair() as (alice, bobby):`, or with plain `with`: two agents, by these names unless others."""

    def __init__(self, first: str = "alice", second: str = "bobby") -> None:
        super().__init__(first, second)
