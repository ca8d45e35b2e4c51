"""Getting one message accepted: save, then send, try again while it makes sense, and keep what could not leave."""

import contextlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, Protocol

from aimessage.client import fates, outbox
from aimessage.client.account import Here
from aimessage.client.delays import Delays
from aimessage.client.dispatch import work_off
from aimessage.client.letter import Letter
from aimessage.client.links import OpenLink
from aimessage.client.outbox import Draft
from aimessage.e2ee.fingerprint import parse_recipient
from aimessage.errors import AimessageError, BadValue, MailboxFull, RelayUnreachable, Temporary
from aimessage.types import MessageId, Username, message_id_text

if TYPE_CHECKING:
    import asyncio

__all__ = ["Brought", "Reach", "Sender", "told_as_kept"]

Brought = tuple[MessageId, str]
"""The id and the fate of a message that was saved."""

_PAY_SECONDS = 2.0
_LOOK_SECONDS = 2.0


class Reach(Protocol):
    """The way to the relay: a link that was good just now, opened when it is first needed."""

    @property
    def is_open(self) -> bool:
        """Whether there is a link that was good just now."""
        ...

    async def link(self) -> OpenLink:
        """Return the link. Raises what opening it does."""
        ...


class Sender:
    """One an Agent, or one a command."""

    def __init__(self, here: Here, connection: Reach) -> None:
        self._here = here
        self._connection = connection
        self._look_again = 0.0
        self._paying: set[asyncio.Task[None]] = set()

    def draft(self, to: str, letter: Letter, *, awaited_until: int = 0) -> Draft:
        """Return what is to be saved for the address *to*. Raises RecipientMalformed, BadValue: to oneself."""
        recipient, prefix = parse_recipient(to)
        if recipient == self._here.profile.username:
            raise BadValue("an agent cannot write to itself", hint="aimessage users --all")
        return Draft(recipient, letter, prefix, awaited_until)

    def save(self, draft: Draft) -> MessageId:
        """Commit one message and return its id. Raises what `outbox.save` does."""
        [result] = outbox.save_all(self._here, [draft])
        if isinstance(result, AimessageError):
            raise result
        return result

    async def accepted(self, recipient: Username, message_id: MessageId, limit: timedelta) -> str:
        """Return the message's fate once the relay has it, trying until *limit*.

        Raises what the message ended with; Temporary or MailboxFull with the id: it is kept.
        """
        fate = await self.brought(recipient, message_id, limit)
        await self.clear_at_times(but=recipient)
        return fate

    async def clear_at_times(self, *, but: Username) -> None:
        """Send what earlier commands left, now and then: every one of many sends would find the same."""
        now = self._here.clock.monotonic()
        if now >= self._look_again:
            self._look_again = now + _LOOK_SECONDS
            await self.clear(but=but)

    async def brought(self, recipient: Username, message_id: MessageId, limit: timedelta) -> str:
        """Do what `accepted` does, but for what others have left: that is the caller's to `clear`."""
        last: AimessageError = RelayUnreachable("the relay did not answer in time")
        accepted: set[MessageId] = set()
        fate = "waiting"
        delays = Delays()
        with contextlib.suppress(TimeoutError):
            async with self._here.waiting.within(limit.total_seconds()):
                while True:
                    try:
                        await self._try(recipient, message_id, accepted)
                        fate = "accepted" if message_id in accepted else fates.fate_of(self._here, message_id)
                        break
                    except AimessageError as error:
                        if message_id in accepted:  # the trouble is another's, behind this one
                            fate = "accepted"
                            break
                        last = error
                    if not isinstance(last, Temporary):
                        self._give_up(last, message_id)
                    delay = next(delays)  # doubled each time, also where the relay names another
                    await self._here.waiting.pause(last.retry_after.total_seconds() if last.retry_after else delay)
        if fate == "waiting" and (fate := fates.fate_of(self._here, message_id)) == "waiting":
            raise self.kept(last, message_id)
        return fate

    def _give_up(self, error: AimessageError, message_id: MessageId) -> NoReturn:
        """Raise *error*: of a message that may have left, or that has to wait for room, it says that it is kept."""
        if not isinstance(error, MailboxFull) and outbox.abandon(self._here, [message_id], error):
            raise error
        raise self.kept(error, message_id)

    async def brought_all(
        self, recipient: Username, ids: Sequence[MessageId], limit: timedelta
    ) -> list[str | AimessageError]:
        """Do what `brought` does for several messages: return the fate of each, or what `brought` raises of it.

        Raises VaultUnavailable, VaultDamaged: nobody can say now what became of them; what was saved is kept.
        """
        here, delays = self._here, Delays()
        silence = RelayUnreachable("the relay did not answer in time")
        trouble: AimessageError = silence
        waiting, accepted = list(ids), set[MessageId]()
        with contextlib.suppress(TimeoutError):
            async with here.waiting.within(limit.total_seconds()):
                while waiting:
                    first, is_over, trouble = waiting[0], True, silence
                    try:
                        await self._try(recipient, first, accepted)
                    except AimessageError as error:  # its own end, or the trouble of all of them
                        trouble, is_over = error, not isinstance(error, Temporary)
                    waiting = [each for each in waiting if each not in accepted]
                    waiting = fates.waiting_among(here, waiting) if waiting else []
                    if is_over and first in waiting:
                        break
                    if waiting and not is_over:
                        delay = next(delays)
                        await here.waiting.pause(trouble.retry_after.total_seconds() if trouble.retry_after else delay)
        if accepted.issuperset(ids):
            return ["accepted"] * len(ids)
        return self._told(ids, waiting, trouble)

    async def brought_each(
        self, recipient: Username, ids: Sequence[MessageId], limit: timedelta
    ) -> list[Brought | AimessageError]:
        """Return of each message its id and its fate, or what `brought` raises of it; trouble of the vault, too."""
        try:
            told = await self.brought_all(recipient, ids, limit)
        except AimessageError as error:  # the vault's, in which they are saved
            return [told_as_kept(error, message_id) for message_id in ids]
        return [
            fate if isinstance(fate, AimessageError) else (message_id, fate)
            for message_id, fate in zip(ids, told, strict=True)
        ]

    def _told(
        self, ids: Sequence[MessageId], waiting: Sequence[MessageId], trouble: AimessageError
    ) -> list[str | AimessageError]:
        """Return the fate of each, or its error; those that still wait are given up or kept because of *trouble*."""
        here = self._here
        waiting = fates.waiting_among(here, waiting) if waiting else []
        given_up: set[MessageId] = set()
        if waiting and not isinstance(trouble, Temporary | MailboxFull):
            given_up = outbox.abandon(here, waiting, trouble)
        kept = self._kept_all(trouble, [each for each in waiting if each not in given_up])
        told = fates.told_of(here, ids)
        import copy

        for message_id, fate in told.items():
            if isinstance(fate, AimessageError) and fate.code == trouble.code:
                told[message_id] = copy.copy(trouble)  # it says more than the code that is kept
        return [kept.get(message_id) or told[message_id] for message_id in ids]

    async def pay(self) -> None:
        """Send the receipts that are owed, if that is quick: this process may end before anybody's upkeep does it."""
        from aimessage.client import control  # one message that is sent needs none of it

        with contextlib.suppress(AimessageError, TimeoutError):
            async with self._here.waiting.within(_PAY_SECONDS):
                if control.is_owed(self._here):
                    await control.flush(self._here, await self._connection.link())

    def pay_soon(self) -> None:
        """Do that on the event loop, while the caller goes on; `close` ends it."""
        import asyncio

        async def pay() -> None:
            async with self._here.waiting.turn("pay"):
                await self.pay()

        task = asyncio.create_task(pay())
        self._paying.add(task)
        task.add_done_callback(self._paying.discard)

    def close(self) -> None:
        """What is not paid now, the agent's next command pays."""
        for task in self._paying:
            task.cancel()

    async def _try(self, recipient: Username, message_id: MessageId, accepted: set[MessageId]) -> None:
        """Have what waits for *recipient* sent, this message too; add to *accepted* what the relay has taken."""
        here, name = self._here, f"send-{recipient}"
        async with here.waiting.turn(name, key=message_id) as is_mine:  # whoever is first sends what others have saved
            if not is_mine:
                accepted.add(message_id)
                return
            # What has left already needs no link; with one, the look into the outbox tells as much.
            if not self._connection.is_open and fates.fate_of(here, message_id) != "waiting":
                return

            def on_accepted(ids: AbstractSet[MessageId]) -> None:
                here.waiting.spare(name, ids)
                accepted.update(ids)

            await work_off(here, await self._connection.link(), recipient, on_accepted=on_accepted)

    async def clear(self, *, but: Username | None = None) -> None:
        """Send what earlier commands left, if that is quick, *but* for one peer; its troubles are nobody's here."""
        with contextlib.suppress(AimessageError, TimeoutError):
            async with self._here.waiting.within(_PAY_SECONDS):
                for other in outbox.waiting_peers(self._here):
                    if other != but:
                        with contextlib.suppress(AimessageError):
                            link = await self._connection.link()
                            await work_off(self._here, link, other, patient=False)

    def kept(self, error: AimessageError, message_id: MessageId) -> AimessageError:
        """Return *error*, which says that this message waits for the next command; it is nobody's meanwhile."""
        return self._kept_all(error, [message_id])[message_id]

    def _kept_all(self, error: AimessageError, ids: Sequence[MessageId]) -> dict[MessageId, AimessageError]:
        if ids:
            outbox.let_go(self._here, ids)
            self._look_again = 0.0
        return {message_id: told_as_kept(error, message_id) for message_id in ids}


def told_as_kept(error: AimessageError, message_id: MessageId) -> AimessageError:
    """Return a copy of *error* that says that this message waits for the next command."""
    import copy  # only trouble needs it: a send that goes well is quicker without

    told = copy.copy(error)
    told.message_id = message_id_text(message_id)
    told.hint = f"the message {told.message_id} is kept and goes out with this agent's next command"
    return told
