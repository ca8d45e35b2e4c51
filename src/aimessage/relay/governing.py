"""What an operator may ask of a running relay through its door, beyond what any store answers: figures and accounts."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

from aimessage.errors import BadValue, RecipientUnknown, UsernameMalformed
from aimessage.relay.admin import Handler
from aimessage.relay.desk import Desk
from aimessage.relay.invites import invite_requests
from aimessage.relay.metrics import Gauges
from aimessage.stores.pages import all_entries
from aimessage.stores.ports import Standing
from aimessage.types import Username, parse_username

__all__ = ["relay_requests"]

_USERS_PER_PAGE = 1_000
_ENTRIES_PER_COMMIT = 1_000
_STANDINGS = frozenset(standing.value for standing in Standing)


def relay_requests(desk: Desk, gauges: Callable[[], Awaitable[Gauges]]) -> dict[str, Handler]:
    """Return what may be asked of the relay behind *desk*."""
    governor = _Governor(desk)

    async def stats(_: Mapping[str, object], __: AsyncExitStack) -> Mapping[str, object]:
        return desk.metrics.summary(await gauges())

    async def still(_: Mapping[str, object], held: AsyncExitStack) -> Mapping[str, object]:
        await held.enter_async_context(desk.stillness.still())  # until the asker hangs up, or dies
        return {}

    async def retire(request: Mapping[str, object], _: AsyncExitStack) -> Mapping[str, object]:
        successor = str(request.get("successor"))
        desk.stillness.require()
        await desk.store.contents.retire(successor)  # if the disk refuses, nothing has moved
        desk.stillness.for_ever(successor)
        return {}

    asked = {"stats": stats, "users": governor.users, "standing": governor.standing, "still": still, "retire": retire}
    invites = invite_requests(desk.store.invites, desk.config.registration, desk.clock, desk.entropy)
    return asked | invites | {name: _as_change(desk, invites[name]) for name in ("invite", "revoke")}


def _as_change(desk: Desk, handler: Handler) -> Handler:
    async def changed(request: Mapping[str, object], held: AsyncExitStack) -> Mapping[str, object]:
        with desk.stillness.changing():
            return await handler(request, held)

    return changed


class _Governor:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.store

    async def users(self, request: Mapping[str, object], _: AsyncExitStack) -> Mapping[str, object]:
        """`after`: one page of accounts above this name, and whether there are more."""
        names = await self._store.directory.names(after=str(request.get("after", "")), limit=_USERS_PER_PAGE + 1)
        page = names[:_USERS_PER_PAGE]
        online, standings = await self._store.presence.online(), await self._store.standings.all()
        rows = [await self._row(name, standings.get(name, Standing.GOOD), online=name in online) for name in page]
        return {"users": rows, "more": len(names) > len(page)}

    async def standing(self, request: Mapping[str, object], _: AsyncExitStack) -> Mapping[str, object]:
        """`username`, `standing`: change it, and tell what it was. Raises BadValue, RecipientUnknown."""
        username, wanted = await self._registered(request.get("username")), str(request.get("standing"))
        if wanted not in _STANDINGS:
            raise BadValue("there is no such standing")
        before = await self._store.standings.of(username)
        if before is Standing.REMOVED and wanted != before.value:
            raise BadValue(f"{username} was removed, and that is for good")
        await self._desk.change_standing(username, Standing(wanted))
        if wanted == Standing.REMOVED.value:  # once more if it was interrupted
            await self._clear(username)
        return {"before": before.value}

    async def _row(self, name: Username, standing: Standing, *, online: bool) -> Mapping[str, object]:
        messages, size = await self._store.mailboxes.depth(name)
        return {
            "username": name,
            "standing": standing.value,
            "online": online,
            "messages": messages,
            "bytes": size,
        }

    async def _clear(self, owner: Username) -> None:
        """Delete the account's mail, one-time pairs and sealed state. Raises RelayUnavailable."""
        mail = all_entries(self._store.mailboxes, owner, now_ms=0)
        entries = [(entry.position, entry.message_id) async for entry in mail]
        for at in range(0, len(entries), _ENTRIES_PER_COMMIT):
            await self._store.mailboxes.ack(owner, entries[at : at + _ENTRIES_PER_COMMIT])
        account = await self._store.directory.find(owner)
        while account is not None and await self._store.pairs.claim(owner, account.vault_id) is not None:
            pass
        version, state = await self._store.states.get(owner)
        if state:
            await self._store.states.put(owner, version + 1, b"")

    async def _registered(self, raw: object) -> Username:
        try:
            username = parse_username(str(raw))
        except UsernameMalformed:
            raise BadValue("this is no username") from None
        if await self._store.directory.find(username) is None:
            raise RecipientUnknown(f"nobody is registered as {username}", hint="aimessage-server users list")
        return username
