"""Many messages in one call: each lot is one commit, and is on its way while the next is sealed."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from aimessage.client import outbox
from aimessage.client.account import Here
from aimessage.client.connection import Connection
from aimessage.client.links import MOST_AT_ONCE
from aimessage.client.outbox import Draft
from aimessage.client.sender import Brought, Sender
from aimessage.errors import AimessageError
from aimessage.types import MessageId, Username

__all__ = ["Bulk"]

_AHEAD = 2  # lots that are saved while an earlier one is on its way
_AT_ONCE = 16  # recipients of one lot; each takes a lock


class Bulk:
    """One an Agent."""

    def __init__(self, here: Here, connection: Connection, sender: Sender) -> None:
        self._here = here
        self._connection = connection
        self._sender = sender
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def bring(self, drafts: Sequence[Draft], limit: timedelta) -> list[Brought | AimessageError]:
        """Save and send *drafts*, those of one recipient in their order; return of each what became of it.

        An error of a message that was saved is what `Sender.brought` raises; of one that was not, what `outbox.save`
        does.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + limit.total_seconds()
        lots: list[asyncio.Task[list[Brought | AimessageError]]] = []
        async with asyncio.TaskGroup() as group:
            for at in range(0, len(drafts), MOST_AT_ONCE):
                lot = drafts[at : at + MOST_AT_ONCE]
                saved = self._save(lot)
                left = timedelta(seconds=max(0.0, until - loop.time()))
                lots.append(group.create_task(self._bring(lot, saved, left)))
                await asyncio.sleep(0)
                if len(lots) > _AHEAD and self._connection.is_open:  # without a link all of them are saved first
                    await asyncio.wait({lots[-1 - _AHEAD]})
        return [outcome for lot in lots for outcome in lot.result()]

    def _save(self, lot: Sequence[Draft]) -> list[MessageId | AimessageError]:
        try:
            return outbox.save_all(self._here, lot, room=self._connection.body_bytes)
        except AimessageError as error:
            return [error] * len(lot)

    async def _bring(
        self, lot: Sequence[Draft], saved: Sequence[MessageId | AimessageError], limit: timedelta
    ) -> list[Brought | AimessageError]:
        outcomes: dict[MessageId, Brought | AimessageError] = {}
        of_recipients: dict[Username, list[MessageId]] = {}
        for draft, result in zip(lot, saved, strict=True):
            if not isinstance(result, AimessageError):
                of_recipients.setdefault(draft.recipient, []).append(result)

        async def bring(recipient: Username, ids: list[MessageId]) -> None:
            async with self._room:
                outcomes.update(zip(ids, await self._sender.brought_each(recipient, ids, limit), strict=True))

        async with asyncio.TaskGroup() as group:
            for recipient, ids in of_recipients.items():
                group.create_task(bring(recipient, ids))
        return [result if isinstance(result, AimessageError) else outcomes[result] for result in saved]
