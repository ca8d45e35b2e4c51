"""A message counts as shown once the answer that holds it has left; a cancelled call, or one that broke, loses none.

A host that cancels a call whose answer is on its way throws that answer away: its messages come again.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from anyio import EndOfStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCResponse

from aimessage.client import Message

__all__ = ["Deliveries", "Heeded", "Watched"]

_REMEMBERED = 64  # answers that a cancellation may still be about, and cancellations
_T = TypeVar("_T")


class _Stream(Protocol):
    async def aclose(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...


class _Outgoing(_Stream, Protocol):
    async def send(self, item: SessionMessage, /) -> None: ...


class _Incoming(_Stream, Protocol):
    async def receive(self) -> SessionMessage | Exception: ...


_StreamT = TypeVar("_StreamT", bound=_Stream)
_Tell = Callable[[Sequence[Message]], None]


class Deliveries:
    """What is on its way to the host, by the request that asked for it."""

    def __init__(self, shown: _Tell, give_back: _Tell, show_again: _Tell) -> None:
        self._shown = shown
        self._give_back = give_back
        self._show_again = show_again
        self._answered: OrderedDict[str, tuple[Message, ...]] = OrderedDict()
        self._unwanted: OrderedDict[str, None] = OrderedDict()
        self._ready: dict[str | int, tuple[Message, ...]] = {}
        self._leaving: set[str | int] = set()

    def hold(self, request: str | int, messages: tuple[Message, ...]) -> None:
        """These messages leave with the answer to *request*."""
        if messages:
            self._ready[request] = messages

    def leaving(self, request: str | int) -> None:
        """The answer to *request* is on its way to the writer."""
        self._leaving.add(request)

    def left(self, request: str | int) -> None:
        """The answer to *request* has been written: its messages do not come again."""
        self._leaving.discard(request)
        if str(request) in self._unwanted:  # it was cancelled while its answer was on the way to the writer
            self.broke(request)
        elif messages := self._ready.pop(request, ()):
            self._shown(messages)
            _remember(self._answered, str(request), messages)

    def cancelled(self, request: object) -> None:
        """The host does not want the answer to *request* any more, even if it has left."""
        _remember(self._unwanted, str(request), None)
        if messages := self._answered.pop(str(request), ()):
            self._show_again(messages)

    def broke(self, request: str | int) -> None:
        """The answer to *request* was not written, or nobody knows: its messages come again, marked."""
        self._leaving.discard(request)
        if messages := self._ready.pop(request, ()):
            self._give_back(messages)

    def sweep(self) -> None:
        """Give back what was ready and never left: its call was cancelled in the moment between."""
        for request in [request for request in self._ready if request not in self._leaving]:
            self.broke(request)


def _remember(memory: OrderedDict[str, _T], request: str, what: _T) -> None:
    memory[request] = what
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)


class _Through(Generic[_StreamT]):
    """A stream that is passed on, ends and all."""

    def __init__(self, inner: _StreamT, deliveries: Deliveries) -> None:
        self._inner = inner
        self._deliveries = deliveries

    async def aclose(self) -> None:
        """Close the stream."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


class Watched(_Through[_Outgoing]):
    """The stream to the writer, telling what goes there; whether it leaves, the writer's `Outlet` tells."""

    async def send(self, item: SessionMessage, /) -> None:
        """Hand one message to the writer."""
        message = item.message
        if not isinstance(message, JSONRPCResponse):
            await self._inner.send(item)
            return
        self._deliveries.leaving(message.id)
        try:
            await self._inner.send(item)
        except BaseException:
            self._deliveries.broke(message.id)
            raise


class Heeded(_Through[_Incoming]):
    """The stream from the host, telling what it cancels."""

    async def receive(self) -> SessionMessage | Exception:
        """Read one message."""
        item = await self._inner.receive()
        message = item.message if isinstance(item, SessionMessage) else None
        if isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._deliveries.cancelled((message.params or {}).get("requestId"))
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None
