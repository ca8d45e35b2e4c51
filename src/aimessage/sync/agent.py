"""The blocking agent: each method is its asynchronous twin's, done on the worker and waited for."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import msgspec

from aimessage import client
from aimessage.errors import AimessageError, BadValue
from aimessage.sync.messages import Hand, InboxPage, Message, Sent, Slice
from aimessage.sync.worker import Worker

__all__ = ["Agent"]

_MessageT = TypeVar("_MessageT", bound=Message)


class Agent:
    """One agent of this machine; any thread may use it. *inner* is the asynchronous one, which lives on the worker."""

    def __init__(self, inner: client.Agent, worker: Worker) -> None:
        self.inner = inner
        self._worker = worker
        self._hand = Hand(self, inner)

    @property
    def profile(self) -> client.Profile:
        """Who this is, and where."""
        return self.inner.profile

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of our identity."""
        return self.inner.fingerprint

    @property
    def address(self) -> str:
        """Our self-certifying address, `name~…`: it pins without trust in the relay."""
        return self.inner.address

    def send(  # noqa: PLR0913 - the fields of a message
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
        timeout: timedelta | float = 30,
    ) -> Sent:
        """Send one message; return once the relay has it on disk, or once it has the fate *wait_for*.

        Times in seconds, or a timedelta. Raises what `aimessage.Agent.send` does.
        """
        return self._sent(
            self._worker.run(
                self.inner.send(
                    to,
                    text,
                    data=data,
                    thread=thread,
                    reply_to=reply_to,
                    ttl=ttl,
                    expects_reply=expects_reply,
                    wait_for=wait_for,
                    idempotency_key=idempotency_key,
                    hops=hops,
                    allow_secrets=allow_secrets,
                    timeout=timeout,
                )
            )
        )

    def send_all(
        self, messages: Iterable[tuple[str, str | client.Letter]], *, timeout: timedelta | float = 30
    ) -> list[Sent | AimessageError]:
        """Send many messages; return of each, in order, what became of it. See `aimessage.Agent.send_all`."""
        outcomes = self._worker.run(self.inner.send_all(messages, timeout=timeout))
        return [each if isinstance(each, AimessageError) else self._sent(each) for each in outcomes]

    def ask(  # noqa: PLR0913 - the fields of a message
        self,
        to: str,
        text: str | None = None,
        *,
        data: object = None,
        thread: str | None = None,
        timeout: timedelta | float = 300,
        hops: int = 0,
        allow_secrets: bool = False,
    ) -> Message:
        """Send one message and return the answer to it. Raises what `aimessage.Agent.ask` does."""
        asking = self.inner.ask(
            to, text, data=data, thread=thread, timeout=timeout, keep=True, hops=hops, allow_secrets=allow_secrets
        )
        answer = self._worker.run(asking)
        self._show([answer])
        return self._held(answer, Message)

    def wait(
        self,
        *,
        sender: str | None = None,
        thread: str | None = None,
        limit: int = 100,
        timeout: timedelta | float = 55,
    ) -> list[Message]:
        """Return everything that waits, up to *limit*, as soon as there is something; an empty list after *timeout*.

        Raises what `aimessage.Agent.wait` does.
        """
        found = self._worker.run(self.inner.wait(sender=sender, thread=thread, limit=limit, timeout=timeout, keep=True))
        self._show(found)
        return [self._held(each, Message) for each in found]

    def listen(
        self,
        *,
        count: int | None = None,
        sender: str | None = None,
        thread: str | None = None,
        manual_ack: bool = False,
    ) -> Iterator[Message]:
        """Yield messages as they come, each after it is safe in the inbox, until *count* have been shown.

        A message counts as shown when the next one is asked for. Raises what `aimessage.Agent.listen` does.
        """
        stream = self.inner.listen(count=count, sender=sender, thread=thread, manual_ack=manual_ack)

        async def following() -> client.Message | None:
            return await anext(stream, None)

        try:
            while (message := self._worker.run(following())) is not None:
                yield self._held(message, Message)
        finally:
            with contextlib.suppress(BadValue):  # the agent is closed: so is the stream
                self._worker.run(stream.aclose())

    def inbox(  # noqa: PLR0913 - a query
        self,
        *,
        limit: int = 20,
        max_chars: int = 8_000,
        cursor: str | None = None,
        peek: bool = False,
        sender: str | None = None,
        thread: str | None = None,
        state: str | None = None,
    ) -> InboxPage:
        """Take in what the relay holds; return a page of what nobody has been shown, or is in *state*, oldest first.

        All of it has at most *max_chars* characters of text. Raises what `aimessage.Agent.inbox` does.
        """
        looking = self.inner.inbox(
            limit=limit,
            max_chars=max_chars,
            cursor=cursor,
            peek=peek,
            sender=sender,
            thread=thread,
            state=state,
            keep=True,
        )
        page = self._worker.run(looking)
        if not peek and state in (None, "unread"):
            self._show(page.messages)
        held = tuple(self._held(each, Message) for each in page.messages)
        return InboxPage(held, page.cursor, page.more_waiting, page.truncated)

    def read(self, message_id: str, *, max_chars: int | None = None, offset: int = 0) -> Slice:
        """Return a message that is here, from character *offset* on. Raises what `aimessage.Agent.read` does."""
        return self._held(self._worker.run(self.inner.read(message_id, max_chars=max_chars, offset=offset)), Slice)

    def until(self, sent: Sent, fate: str, *, timeout: timedelta | float = 30) -> Sent:
        """Return *sent* once its fate is *fate* or beyond. Raises what `aimessage.Agent.until` does."""
        outcome = client.Sent(sent.id, sent.to, sent.state)
        return replace(sent, state=self._worker.run(self.inner.until(outcome, fate, timeout=timeout)).state)

    def users(self, *, everyone: bool = False) -> list[client.UserPresence]:
        """Return who is online, or everybody who is registered, by name."""
        return self._worker.run(self.inner.users(everyone=everyone))

    def reply_to(
        self,
        message: client.Message,
        text: str | None,
        data: object = None,
        *,
        expects_reply: bool = True,
        allow_secrets: bool = False,
    ) -> Sent:
        """Answer a message in its thread. Raises what `send` does."""
        outcome = self.inner.reply_to(message, text, data, expects_reply=expects_reply, allow_secrets=allow_secrets)
        return self._sent(self._worker.run(outcome))

    def acknowledge(self, message_id: str) -> None:
        """A consumer has dealt with this message. Raises MessageUnknown; BadValue: not an id."""
        self._worker.run(self.inner.acknowledge(message_id))

    def status(self, message_id: str) -> client.Fate:
        """Return what is known of one message of ours. Raises MessageUnknown; BadValue: not an id."""
        return self._worker.call(lambda: self.inner.status(message_id))

    def history(self, *, peer: str | None = None, limit: int = 50, before: str | None = None) -> list[client.Entry]:
        """Return up to *limit* messages both ways, the newest last, all before the cursor *before*."""
        return self._worker.call(lambda: self.inner.history(peer=peer, limit=limit, before=before))

    def past(self, cursor: str) -> list[client.Message]:
        """Return what was shown or handled here behind *cursor*, whole. Raises BadValue."""
        return list(self._worker.call(lambda: self.inner.past(cursor)).messages)

    def dead_letters(self) -> list[client.DeadLetter]:
        """Return the messages that handlers have given up, the oldest first."""
        return self._worker.call(self.inner.dead_letters)

    def retry(self, message_id: str) -> None:
        """Give a message that was given up to the next consumer. Raises MessageUnknown; BadValue: not an id."""
        self._worker.call(lambda: self.inner.retry(message_id))

    def contacts(self) -> list[client.Contact]:
        """Return everybody we know, by name."""
        return self._worker.call(self.inner.contacts)

    def contact_request(self, name: str, note: str | None = None) -> Sent:
        """Ask to be heard by *name*. Raises what `send` does."""
        return self._sent(self._worker.run(self.inner.contact_request(name, note)))

    def contact_accept(self, name: str) -> client.Contact:
        """Hear *name* from now on, blocked or not. Raises UsernameMalformed."""
        return self._worker.call(lambda: self.inner.contact_accept(name))

    def contact_block(self, name: str) -> client.Contact:
        """Hear nothing of *name* any more; nobody is told. Raises UsernameMalformed."""
        return self._worker.call(lambda: self.inner.contact_block(name))

    def contact_verify(self, name: str, fingerprint: str) -> client.Contact:
        """Believe the key of *name* that a person has compared. Raises what `aimessage.Agent.contact_verify` does."""
        return self._worker.run(self.inner.contact_verify(name, fingerprint))

    def safety_number(self, name: str) -> str:
        """Return the 60 digits that we and *name* see alike. Raises NotFound: we do not know its key."""
        return self._worker.call(lambda: self.inner.safety_number(name))

    @property
    def contact_policy(self) -> str:
        """Who may write to us: `open`, `contacts` (strangers wait for a word) or `closed`."""
        return self._worker.call(lambda: self.inner.contact_policy)

    def set_contact_policy(self, policy: str) -> None:
        """Change who may write to us. Raises BadValue."""
        self._worker.call(lambda: self.inner.set_contact_policy(policy))

    def refresh(self, *, timeout: timedelta | float = 5) -> bool:
        """Take in what the relay holds; return whether all of it is here."""
        return self._worker.run(self.inner.refresh(timeout=timeout))

    def flush(self) -> None:
        """Send, as far as that is quick, what is owed and what earlier commands left in the outbox."""
        self._worker.run(self.inner.flush())

    def _show(self, messages: Sequence[client.Message]) -> None:
        # Only after they have come back to the caller's thread: an interruption before that loses none.
        self._worker.call(lambda: self.inner.shown(messages))

    def _sent(self, outcome: client.Sent) -> Sent:
        return Sent(outcome.id, outcome.to, outcome.state, self)

    def _held(self, message: client.Message, kind: type[_MessageT]) -> _MessageT:
        values = msgspec.structs.asdict(message)
        return kind(**values | {"agent": self._hand})
