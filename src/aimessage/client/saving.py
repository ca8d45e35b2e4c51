"""Concurrent sends share one commit: what one turn of the event loop wants saved is saved together."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aimessage.client import outbox
from aimessage.client.account import Here
from aimessage.client.outbox import Draft
from aimessage.errors import AimessageError
from aimessage.types import MessageId

__all__ = ["SharedSaving"]

_MOST = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    draft: Draft
    saved: "asyncio.Future[MessageId]"


class SharedSaving:
    """One an Agent."""

    def __init__(self, here: Here, is_linked: Callable[[], bool]) -> None:
        self._here = here
        self._is_linked = is_linked
        self._waiting: list[_Waiting] = []

    async def save(self, draft: Draft) -> MessageId:
        """Return the id of *draft* once it is on disk. Raises what `outbox.save` does."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(draft, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._commit)  # behind everything that is ready in this turn
        self._waiting.append(waiting)
        return await waiting.saved

    def _commit(self) -> None:
        batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._commit)
        results: list[MessageId | AimessageError]
        try:
            results = outbox.save_all(self._here, [each.draft for each in batch], sealing=self._is_linked())
        except AimessageError as error:
            results = [error] * len(batch)
        for each, result in zip(batch, results, strict=True):
            if each.saved.done():  # its caller was cancelled; the message is in the outbox all the same
                continue
            if isinstance(result, AimessageError):
                each.saved.set_exception(result)
            else:
                each.saved.set_result(result)
