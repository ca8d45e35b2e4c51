"""Concurrent sends share what they cost: what one turn of the event loop wants sent is saved in one commit, and those
messages of it that go to one recipient are brought there together.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from aimessage.client import outbox
from aimessage.client.account import Here
from aimessage.client.connection import Connection
from aimessage.client.outbox import Draft
from aimessage.client.sender import Brought, Sender, told_as_kept
from aimessage.errors import AimessageError, RelayUnreachable
from aimessage.types import MessageId, Username

__all__ = ["SharedSends"]

_MOST = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """One send: who waits for its id, *saved*, or for its fate, *brought*, at most for *limit*."""

    draft: Draft
    limit: timedelta
    saved: "asyncio.Future[MessageId] | None" = None
    brought: "asyncio.Future[Brought] | None" = None

    def fail(self, error: Exception) -> None:
        """Tell who waits, if anybody still does."""
        for future in (self.saved, self.brought):
            if future is not None and not future.done():
                future.set_exception(error)


class SharedSends:
    """One an Agent."""

    def __init__(self, here: Here, connection: Connection, sender: Sender) -> None:
        self._here = here
        self._connection = connection
        self._sender = sender
        self._met: set[Username] = set()  # recipients who were looked at here
        self._waiting: list[_Waiting] = []
        self._bringing: dict[asyncio.Task[None], list[tuple[MessageId, _Waiting]]] = {}

    async def save(self, draft: Draft) -> MessageId:
        """Return the id of *draft* once it is on disk. Raises what `outbox.save` does."""
        saved: asyncio.Future[MessageId] = asyncio.get_running_loop().create_future()
        self._add(_Waiting(draft, timedelta(), saved=saved))
        return await saved

    async def bring(self, draft: Draft, limit: timedelta) -> Brought:
        """Return the id of *draft* and its fate once the relay has it, trying until *limit*.

        A caller that is cancelled has given nothing up: what is saved goes on.

        Raises what `outbox.save` and `Sender.accepted` do.
        """
        brought: asyncio.Future[Brought] = asyncio.get_running_loop().create_future()
        self._add(_Waiting(draft, limit, brought=brought))
        return await brought

    def close(self) -> None:
        """What has not left yet stays in the outbox; what was not saved yet never was."""
        unsaved, self._waiting = self._waiting, []
        for waiting in unsaved:
            waiting.fail(
                RelayUnreachable("the agent was closed before the message was saved", hint="send it while it is open")
            )
        closed = RelayUnreachable("the agent was closed before the relay answered")
        for task, group in self._bringing.items():
            task.cancel()
            for message_id, waiting in group:
                waiting.fail(told_as_kept(closed, message_id))

    def _add(self, waiting: _Waiting) -> None:
        if self._connection.is_open and waiting.draft.recipient not in self._met:
            self._foresee(waiting.draft)
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._commit)  # behind everything that is ready in this turn
        self._waiting.append(waiting)

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
        if not batch:
            return  # closed meanwhile
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._commit)
        results: Sequence[MessageId | Exception]
        try:
            results = outbox.save_all(self._here, [each.draft for each in batch], room=self._connection.body_bytes)
        except Exception as error:  # noqa: BLE001 - told to all who wait, a bug of ours too: nobody else would hear
            results = [error] * len(batch)
        groups: dict[tuple[Username, timedelta], list[tuple[MessageId, _Waiting]]] = {}
        for each, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                each.fail(result)
            elif each.saved is None:
                groups.setdefault((each.draft.recipient, each.limit), []).append((result, each))
            elif not each.saved.done():  # or its caller was cancelled; the message is in the outbox all the same
                each.saved.set_result(result)
        for (recipient, limit), group in groups.items():
            task = asyncio.create_task(self._bring(recipient, limit, group))
            self._bringing[task] = group
            task.add_done_callback(self._bringing.pop)

    async def _bring(self, recipient: Username, limit: timedelta, group: list[tuple[MessageId, _Waiting]]) -> None:
        try:
            outcomes = await self._sender.brought_each(recipient, [message_id for message_id, _ in group], limit)
        except Exception as error:  # noqa: BLE001 - as above
            for _, waiting in group:
                waiting.fail(error)
            return
        for (_, waiting), outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, AimessageError):
                waiting.fail(outcome)
            elif waiting.brought is not None and not waiting.brought.done():
                waiting.brought.set_result(outcome)
        with suppress(OSError):  # the troubles of what others have left are nobody's here
            await self._sender.clear_at_times(but=recipient)
