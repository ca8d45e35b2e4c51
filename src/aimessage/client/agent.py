"""The public face: an agent that sends, asks and listens. What it does, its neighbours do; here it is put together."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Self

from aimessage.client import consumers, contacts, fates, reading
from aimessage.client.account import Here
from aimessage.client.bulk import Bulk
from aimessage.client.changes import Changes
from aimessage.client.connection import Connection
from aimessage.client.consumers import Filter
from aimessage.client.contacts import Contact
from aimessage.client.fates import FATES
from aimessage.client.letter import Letter
from aimessage.client.listening import showing
from aimessage.client.local import LocalAgent
from aimessage.client.message import Message
from aimessage.client.needs import Need
from aimessage.client.presence import UserPresence, list_users
from aimessage.client.reading import Budget, InboxPage, Query, Slice
from aimessage.client.receiver import Receiver
from aimessage.client.sender import Sender
from aimessage.client.sent import Sent, wanted_receipts
from aimessage.client.sharing import SharedSends
from aimessage.client.taking import answer_to, what_comes
from aimessage.errors import (
    AimessageError,
    BadValue,
    FateTimedOut,
    RelayUnreachable,
)
from aimessage.types import message_id_text, parse_message_id

__all__ = ["Agent"]


class Agent(LocalAgent):
    """One agent of this machine. One link is opened when it is first needed, and again after it is lost."""

    def __init__(self, here: Here, *, notice: Callable[[str], None] | None = None) -> None:
        super().__init__(here)
        self._connection = Connection(here)
        self._changes = Changes(here.vault)
        self._sender = Sender(here, self._connection)
        self._sends = SharedSends(here, self._connection, self._sender)
        self._bulk = Bulk(here, self._connection, self._sender)
        self._receiver = Receiver(here, self._connection, self._changes, notice or logging.getLogger(__name__).warning)

    @property
    def is_connected(self) -> bool:
        """Whether this process has spoken with the relay."""
        return self._connection.was_used

    def close(self) -> None:
        """Close the link and the vault."""
        self._sends.close()
        self._sender.close()
        self._connection.close()
        self._here.close()

    def _changed(self) -> None:
        self._changes.tell()

    def _held(self, piece: Slice) -> Slice:
        return piece.held_by(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def send(  # noqa: PLR0913 - the fields of a message
        self,
        to: str,
        text: str | None = None,
        *,
        data: object = None,
        thread: str | None = None,
        reply_to: str | None = None,
        ttl: timedelta | None = None,
        expects_reply: bool = True,
        wait_for: str = "accepted",
        idempotency_key: str | None = None,
        hops: int = 0,
        allow_secrets: bool = False,
        timeout: timedelta | float = 30,  # noqa: ASYNC109 - the message outlives the call
    ) -> Sent:
        """Send one message and return once the relay has it on disk, or once it has the fate *wait_for*.

        Temporary failures are retried until *timeout* (seconds, or a timedelta); after it the message stays in the
        outbox, and the agent's next command sends it. The same *idempotency_key* gives the same message. Writing to
        somebody accepts it as a contact. *hops* counts the messages that led to this one; a reply's are counted anyway.

        Raises InvalidInput (to oneself, too), SecretFound (unless *allow_secrets*), LoopStopped, Blocked,
        RecipientUnknown, PeerIdentityChanged, OverLimit, Denied; Temporary with
        the id: not accepted yet; TimedOut with the id: accepted, and the awaited fate did not come in time.
        """
        letter = Letter(
            *(text, data, thread, reply_to, ttl, expects_reply, wanted_receipts(wait_for), idempotency_key),
            hops=hops,
            allow_secrets=allow_secrets,
        )
        return await self._send(to, letter, wait_for, _delta(timeout))

    async def send_all(
        self,
        messages: Iterable[tuple[str, str | Letter]],
        *,
        timeout: timedelta | float = 30,  # noqa: ASYNC109 - the messages outlive the call
    ) -> list[Sent | AimessageError]:
        """Send many messages, each a recipient and a text or a Letter; return of each, in order, what became of it.

        Those of one recipient arrive in their order. They share commits and frames, as many `send` at once do, without
        a task for each. Nothing is raised for the trouble of one: in its place stands the error that `send` raises,
        with the id if it is kept. *timeout* (seconds, or a timedelta) is for all of them.
        """
        results: list[Sent | AimessageError | None] = []
        drafts = []
        for to, said in messages:
            try:
                drafts.append(self._sender.draft(to, _letter(said)))
                results.append(None)
            except AimessageError as error:
                results.append(error)
        brought = zip(drafts, await self._bulk.bring(drafts, _delta(timeout)), strict=True)

        def outcome() -> Sent | AimessageError:
            draft, told = next(brought)
            if isinstance(told, AimessageError):
                return told
            message_id, fate = told
            return Sent(message_id_text(message_id), draft.recipient, fate, self)

        return [outcome() if result is None else result for result in results]

    async def _send(self, to: str, letter: Letter, wait_for: str, limit: timedelta) -> Sent:
        until = asyncio.get_running_loop().time() + limit.total_seconds()
        draft = self._sender.draft(to, letter)
        message_id, fate = await self._sends.bring(draft, limit)
        sent = Sent(message_id_text(message_id), draft.recipient, fate, self)
        if FATES[sent.state] >= FATES[wait_for]:
            return sent
        left = max(0.0, until - asyncio.get_running_loop().time())
        return await self.until(sent, wait_for, timeout=left)

    async def ask(  # noqa: PLR0913 - the fields of a message
        self,
        to: str,
        text: str | None = None,
        *,
        data: object = None,
        thread: str | None = None,
        timeout: timedelta | float = 300,  # noqa: ASYNC109 - the message outlives the call
        keep: bool = False,
        hops: int = 0,
        allow_secrets: bool = False,
    ) -> Message:
        """Send one message and return the answer to it; no other consumer of this agent gets that answer.

        With *keep* the caller says itself, by `shown`, that it has shown it: if it ends before, the answer comes again.
        Raises what `send` does; TimedOut with the id: no answer came in time.
        """
        limit = _delta(timeout)
        letter = Letter(text, data, thread, hops=hops, allow_secrets=allow_secrets)
        awaited_until = self._here.now_ms + limit // timedelta(milliseconds=1)
        draft = self._sender.draft(to, letter, awaited_until=awaited_until)
        message_id = await self._sends.save(draft)

        async def accepted() -> None:
            await self._sender.accepted(draft.recipient, message_id, limit)

        try:
            answer = await answer_to(self._here, self._receiver, message_id, accepted, limit)
            if not keep:
                self.shown([answer])
            return answer.held_by(self)
        except TimeoutError:
            if fates.fate_of(self._here, message_id) == "waiting":
                raise self._sender.kept(RelayUnreachable("the relay did not answer in time"), message_id) from None
            error = FateTimedOut("no answer came in time", hint=f"aimessage status {message_id_text(message_id)}")
            error.message_id = message_id_text(message_id)
            raise error from None
        finally:
            consumers.stop_awaiting(self._here, message_id)

    async def until(
        self,
        sent: Sent,
        fate: str,
        *,
        timeout: timedelta | float = 30,  # noqa: ASYNC109 - the message goes on
    ) -> Sent:
        """Return *sent* once its fate is *fate* or beyond: accepted, delivered, read or handled.

        Raises what the message ended with (a refusal, TimedOut for expired, DecryptionFailed), and TimedOut with the
        id: the fate did not come in time.
        """
        message_id = parse_message_id(sent.id)
        try:
            async with (
                asyncio.timeout(_delta(timeout).total_seconds()),
                self._receiver.receiving(Need.WATCH) as watch,
            ):
                while FATES[state := fates.fate_of(self._here, message_id)] < FATES[fate]:
                    await self._receiver.next(watch, 1.0)
        except TimeoutError:
            error = FateTimedOut(f"the message is not {fate} yet", hint=f"aimessage status {sent.id}")
            error.message_id = sent.id
            raise error from None
        return replace(sent, state=state)

    async def users(self, *, everyone: bool = False) -> list[UserPresence]:
        """Return who is online, or everybody who is registered, by name."""
        return await list_users((await self._connection.get()).link, everyone=everyone)

    async def listen(
        self,
        *,
        count: int | None = None,
        sender: str | None = None,
        thread: str | None = None,
        manual_ack: bool = False,
    ) -> AsyncGenerator[Message, None]:
        """Yield messages as they come, each after it is safe in the inbox, until *count* have been shown.

        A message counts as shown when the next one is asked for; before that, the next consumer is shown it again,
        marked `redelivered`. With *manual_ack* it does so until it is acknowledged, and the relay keeps its copy so
        long. With *sender* or *thread*, only those; the others wait for another consumer.

        Lost links are replaced. Raises Superseded: another `listen` of this agent, here or on another machine, receives
        now; NotAuthenticated.
        """
        left = count
        wanted = Filter(sender, thread)
        try:
            async with self._receiver.receiving(Need.LISTEN, until_handled=manual_ack) as watch:
                with showing(self._here, self._receiver, wanted, until_handled=manual_ack) as consumer:
                    while True:
                        batch = consumer.take(left, watch)
                        for row, message in batch:
                            yield message.held_by(self)
                            # Only now: a consumer that failed or left meanwhile is shown this message again.
                            consumer.was_shown(row)
                            if left is not None:
                                left -= 1
                                if not left:
                                    return
                        if not batch:
                            await consumer.more(watch)
        finally:
            self._tell_senders()

    async def wait(
        self,
        *,
        sender: str | None = None,
        thread: str | None = None,
        limit: int = 100,
        timeout: timedelta | float = 55,  # noqa: ASYNC109 - a wait is a time-out
        keep: bool = False,
    ) -> list[Message]:
        """Return everything that waits, up to *limit*, as soon as there is something; an empty list after *timeout*.

        With *keep* the caller says itself, by `shown`, that it has shown them: what it does not, comes again.

        Raises what `listen` does; Temporary: nothing came, and the relay cannot be reached.
        """
        found = await what_comes(self._here, self._receiver, Filter(sender, thread), limit, _delta(timeout))
        messages = [message.held_by(self) for message in found]
        if not keep:
            self.shown(messages)  # and nothing awaited after it: who is cancelled before has not been shown them
        return messages

    async def inbox(  # noqa: PLR0913 - a query
        self,
        *,
        limit: int = 20,
        max_chars: int = reading.PAGE_CHARS,
        cursor: str | None = None,
        peek: bool = False,
        sender: str | None = None,
        thread: str | None = None,
        state: str | None = None,
        cost: Callable[[Message], int] = reading.said_chars,
        keep: bool = False,
    ) -> InboxPage:
        """Take in what the relay holds and return a page of what nobody has been shown, oldest first.

        All of a page costs at most *max_chars*: characters of text, or what *cost* counts; what is cut is `truncated`,
        and `read` gives it whole. The page counts as shown, unless *peek* (which takes nothing over from another
        machine) or *keep* (the caller then says so by `shown`). *state*: unread, shown, handled, dead or all.

        Raises what `listen` does; BadValue; Temporary: nothing is here, and the relay cannot be reached.
        """
        query, budget = Query(limit, cursor, sender, thread, state), Budget(max_chars, cost)
        page = await reading.next_page(self._here, self._receiver, query, budget, peek=peek)
        if not (peek or keep) and query.is_unread:
            self.shown(page.messages)
        return page.held_by(self)

    @property
    def trouble(self) -> AimessageError | None:
        """What stands between a running `listen` or `wait` and the relay now; None if nothing does."""
        return self._receiver.trouble

    def shown(self, messages: Sequence[Message], *, until_handled: bool = False) -> None:
        """A consumer has been shown these messages: they do not come again."""
        super().shown(messages, until_handled=until_handled)
        if messages:
            self._tell_senders()

    def _tell_senders(self) -> None:
        if self.is_connected and not self._receiver.is_running:  # nobody else tells them soon
            self._sender.pay_soon()

    async def acknowledge(self, message_id: str) -> None:
        """A consumer has dealt with this message; its sender hears of it, if it asked to.

        Raises MessageUnknown; BadValue: not an id.
        """
        await super().acknowledge(message_id)
        if self.is_connected and not self._receiver.is_running:  # nobody else here would tell the sender soon
            await self._sender.pay()

    async def flush(self) -> None:
        """Send, as far as that is quick, the receipts that are owed and what earlier commands left in the outbox."""
        await self._sender.pay()

    async def reply_to(
        self,
        message: Message,
        text: str | None,
        data: object = None,
        *,
        expects_reply: bool = True,
        allow_secrets: bool = False,
    ) -> Sent:
        """Answer a message in its thread. Raises what `send` does."""
        return await self.send(
            message.from_,
            text,
            data=data,
            thread=message.thread,
            reply_to=message.id,
            hops=message.hops + 1,
            expects_reply=expects_reply,
            allow_secrets=allow_secrets,
        )

    async def contact_request(self, name: str, note: str | None = None) -> Sent:
        """Ask to be heard by *name*, with a *note* that it sees once it accepts; its answers are heard from now on.

        Raises what `send` does.
        """
        text = note if note is not None else f"{self.profile.username} asks to be your contact"
        return await self._send(name, Letter(text, contact="requested"), "accepted", timedelta(seconds=30))

    async def contact_verify(self, name: str, fingerprint: str) -> Contact:
        """Believe the key of *name* that has this *fingerprint*: its address `name~…`, or our common safety number.

        It must come from a person, over another channel. A changed key is believed so, too, and what came under it is
        asked for again. Raises PeerIdentityChanged: no key of *name* has it; BadValue: it is too short or malformed.
        """
        contact = await contacts.verify(self._here, self._connection, name, fingerprint)
        self._changed()
        return contact

    async def refresh(self, *, timeout: timedelta | float = 5) -> bool:  # noqa: ASYNC109 - best effort
        """Take in what waits at the relay, if this machine is the active one; return whether that was possible."""
        with contextlib.suppress(AimessageError):
            await self._receiver.settle(Need.WATCH, _delta(timeout))
        return self._receiver.settled and self.trouble is None


def _letter(said: object) -> Letter:
    if isinstance(said, Letter):
        return said
    if not isinstance(said, str):
        raise BadValue("a message is a text or a Letter", hint="for data: aimessage.Letter(data=…)")
    return Letter(said)


def _delta(limit: timedelta | float) -> timedelta:
    return limit if isinstance(limit, timedelta) else timedelta(seconds=limit)
