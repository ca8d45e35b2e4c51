"""What a blocking agent hands out: outcomes and messages whose methods block."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from aimessage import client
from aimessage.errors import NoIdentity

__all__ = ["Blocking", "Hand", "InboxPage", "Message", "Sent", "Slice"]


class Blocking(Protocol):
    """The blocking agent, as outcomes and messages need it."""

    def until(self, sent: "Sent", fate: str, *, timeout: timedelta | float) -> "Sent":
        """Return *sent* once its fate is *fate* or beyond."""
        ...

    def reply_to(
        self, message: client.Message, text: str | None, data: object, *, expects_reply: bool, allow_secrets: bool
    ) -> "Sent":
        """Send an answer in the message's thread."""
        ...

    def acknowledge(self, message_id: str) -> None:
        """Say that the message has been dealt with."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """The outcome of one send; *state* is its fate when `send` returned: accepted is on the relay's disk."""

    id: str
    to: str
    state: str
    agent: Blocking = field(repr=False, compare=False)

    def delivered(self, timeout: timedelta | float = 30) -> "Sent":
        """Return once the recipient's program has it on disk. Raises what `Agent.until` does."""
        return self.agent.until(self, "delivered", timeout=timeout)

    def read(self, timeout: timedelta | float = 30) -> "Sent":
        """Return once a consumer has been shown it; ask for it when sending. Raises what `Agent.until` does."""
        return self.agent.until(self, "read", timeout=timeout)

    def handled(self, timeout: timedelta | float = 30) -> "Sent":
        """Return once a consumer has acknowledged it; ask for it when sending. Raises what `Agent.until` does."""
        return self.agent.until(self, "handled", timeout=timeout)


class Hand:
    """The blocking agent, as a message holds it; asynchronous code that is handed the message can use it, too."""

    def __init__(self, blocking: Blocking, inner: client.Agent) -> None:
        self.blocking = blocking
        self._inner = inner

    async def reply_to(
        self, message: client.Message, text: str | None, data: object, *, expects_reply: bool, allow_secrets: bool
    ) -> client.Sent:
        """Send an answer in the message's thread."""
        return await self._inner.reply_to(message, text, data, expects_reply=expects_reply, allow_secrets=allow_secrets)

    async def acknowledge(self, message_id: str) -> None:
        """Say that the message has been dealt with."""
        await self._inner.acknowledge(message_id)


class Message(client.Message, frozen=True):
    """One incoming message, in the hands of a blocking agent."""

    # The async twin's methods, blocking: whoever holds this one never awaits.
    def reply(  # type: ignore[override]
        self,
        text: str | None = None,
        *,
        data: object = None,
        expects_reply: bool = True,
        allow_secrets: bool = False,
    ) -> Sent:
        """Send an answer: same thread, `reply_to` this message, one hop more. Raises what `Agent.send` does."""
        return _agent_of(self).reply_to(self, text, data, expects_reply=expects_reply, allow_secrets=allow_secrets)

    def ack(self) -> None:  # type: ignore[override]
        """Say that this message has been dealt with. Raises MessageUnknown."""
        _agent_of(self).acknowledge(self.id)


class Slice(Message, frozen=True):
    """A message, or a piece of it: its text from *offset* on, in characters; the next piece begins at *next_offset*."""

    offset: int = 0
    next_offset: int | None = None


@dataclass(frozen=True, slots=True)
class InboxPage:
    """A page of messages, oldest first; the next one is asked for with *cursor*.

    *truncated*: of at least one message, only a part is here. *more_waiting*: more messages fit the question.
    """

    messages: tuple[Message, ...]
    cursor: str | None
    more_waiting: bool
    truncated: bool


def _agent_of(message: Message) -> Blocking:
    if not isinstance(message.agent, Hand):
        raise NoIdentity("this message is not in an agent's hands", hint="take it from listen, wait or ask")
    return message.agent.blocking
