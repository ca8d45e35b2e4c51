"""Concurrent sends share one commit: what one turn of the event loop wants saved is saved together."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from aimessage.client import outbox
from aimessage.client.account import Here
from aimessage.client.connection import Connection
from aimessage.client.outbox import Draft
from aimessage.errors import AimessageError
from aimessage.types import MessageId, Username

__all__ = ["SharedSaving"]

_MOST = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    draft: Draft
    saved: "asyncio.Future[MessageId]"


class SharedSaving:
    """One an Agent."""

    def __init__(self, here: Here, connection: Connection) -> None:
        self._here = here
        self._connection = connection
        self._met: set[Username] = set()  # recipients who were looked at here
        self._waiting: list[_Waiting] = []

    async def save(self, draft: Draft) -> MessageId:
        """Return the id of *draft* once it is on disk. Raises what `outbox.save` does."""
        if self._connection.is_open and draft.recipient not in self._met:
            self._foresee(draft)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(draft, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._commit)  # behind everything that is ready in this turn
        self._waiting.append(waiting)
        return await waiting.saved

    def _foresee(self, draft: Draft) -> None:
        """Ask for the bundle of somebody with whom there is no session: it comes while the first message is saved."""
        self._met.add(draft.recipient)
        with suppress(AimessageError):  # told by whoever saves it
            draft.letter.check()
            with self._here.vault.reading() as vault:
                peer = vault.peer(self._here.address(draft.recipient))
            if not peer.conversation.can_send and peer.contact != "blocked":
                self._connection.expect_bundle(draft.recipient)

    def _commit(self) -> None:
        batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._commit)
        results: Sequence[MessageId | Exception]
        try:
            results = outbox.save_all(self._here, [each.draft for each in batch], sealing=self._connection.is_open)
        except Exception as error:  # noqa: BLE001 - told to all who wait, a bug of ours too: nobody else would hear
            results = [error] * len(batch)
        for each, result in zip(batch, results, strict=True):
            if each.saved.done():  # its caller was cancelled; the message is in the outbox all the same
                continue
            if isinstance(result, Exception):
                each.saved.set_exception(result)
            else:
                each.saved.set_result(result)
