"""How a blocking agent comes to be: opened here, registered, or restored."""

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from aimessage import client
from aimessage.sync.agent import Agent
from aimessage.sync.worker import Worker, refuse_in_a_loop

__all__ = ["connect", "register", "restore"]

T = TypeVar("T")


def register(
    settings: client.Settings, username: str, *, if_not_exists: bool = False, invite: str = ""
) -> client.Profile:
    """Make a new identity and claim *username* for it. Raises what `aimessage.register` does."""
    return _once(client.register(settings, username, if_not_exists=if_not_exists, invite=invite))


def restore(settings: client.Settings, username: str) -> client.Profile:
    """Bring an existing identity to this machine. Raises what `aimessage.restore` does."""
    return _once(client.restore(settings, username))


def _once(work: Coroutine[Any, Any, T]) -> T:
    worker = Worker()
    try:
        return worker.run(work)
    finally:
        worker.close()


class connect:  # noqa: N801 - used as a function, like open()
    """`with connect(agent="planner") as me:` opens the agent of *settings*, or of the environment, as its twin does.

    Raises NoIdentity and what `restore` raises; BadValue: inside a running event loop.
    """

    def __init__(
        self,
        settings: client.Settings | None = None,
        *,
        agent: str | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self._inner = client.connect(settings, agent=agent, notice=notice)
        self._worker: Worker | None = None

    def __enter__(self) -> Agent:
        refuse_in_a_loop()
        self._worker = worker = Worker()
        try:
            return Agent(worker.run(self._inner.__aenter__()), worker)
        except BaseException:
            worker.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            try:
                self._worker.run(self._inner.__aexit__(kind, error, trace))
            finally:
                self._worker.close()
