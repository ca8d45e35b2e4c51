"""What a reader gets: one message, with where it comes from and how far to trust it. Shape: the CLI's JSON."""

import json
from typing import NoReturn, Protocol, Self

import msgspec
from msgspec.structs import replace

from aimessage.clock import timestamp
from aimessage.e2ee.bodies import Body
from aimessage.e2ee.text import reveal
from aimessage.errors import NoIdentity
from aimessage.types import MessageId, Username, message_id_text

__all__ = ["Frame", "Message", "Replier", "incoming"]


class Replier(Protocol):
    """The agent that received a message, as the message needs it."""

    async def reply_to(
        self, message: "Message", text: str | None, data: object, *, expects_reply: bool, allow_secrets: bool
    ) -> object:
        """Send an answer in the message's thread."""
        ...

    async def acknowledge(self, message_id: str) -> None:
        """Say that the message has been dealt with."""
        ...


class Message(msgspec.Struct, frozen=True):
    """One incoming message. `content_trust` is always untrusted: `from_trust` speaks of the key only."""

    id: str
    cursor: str
    from_: str
    from_fingerprint: str | None
    from_trust: str
    to: str
    received_at: str | None
    type: str = "message"
    contact: str = "none"
    room: str | None = None
    thread: str | None = None
    reply_to: str | None = None
    sent_at: str | None = None
    expires_at: str | None = None
    kind: str = "text"
    text: str | None = None
    data: object = None
    attachments: tuple[str, ...] = ()
    expects_reply: bool = True
    hops: int = 0
    redelivered: bool = False
    content_trust: str = "untrusted"
    flags: tuple[str, ...] = ()
    truncated: bool = False
    bytes: int = 0
    more_waiting: bool = False
    agent: Replier | None = None

    def with_more(self, more: bool) -> Self:
        """Return this message saying whether more of them wait."""
        return replace(self, more_waiting=more)

    def held_by(self, agent: Replier) -> Self:
        """Return this message in the hands of *agent*, which can then reply and acknowledge."""
        return replace(self, agent=agent)

    async def reply(
        self,
        text: str | None = None,
        *,
        data: object = None,
        expects_reply: bool = True,
        allow_secrets: bool = False,
    ) -> object:
        """Send an answer: same thread, `reply_to` this message, one hop more. Raises what `Agent.send` does."""
        return await self._agent().reply_to(self, text, data, expects_reply=expects_reply, allow_secrets=allow_secrets)

    async def ack(self) -> None:
        """Say that this message has been dealt with: only then does the relay's copy go, where it was kept so long."""
        await self._agent().acknowledge(self.id)

    def _agent(self) -> Replier:
        if self.agent is None:
            raise NoIdentity("this message is not in an agent's hands", hint="take it from listen, wait or ask")
        return self.agent

    def as_json(self) -> dict[str, object]:
        """Return the object that `listen --json` prints, `v` first."""
        values: dict[str, object] = {"v": 1, "type": self.type}
        for name in self.__struct_fields__:
            if name != "agent":
                value = getattr(self, name)
                values[name.rstrip("_")] = list(value) if isinstance(value, tuple) else value
        return values


class Frame(msgspec.Struct, frozen=True, gc=False):
    """What the inbox knows of a message without opening its body; *received_at* in milliseconds since 1970."""

    row: int
    sender: Username
    to: Username
    id: MessageId
    kind: str
    received_at: int
    contact: str = "none"


def incoming(
    frame: Frame, body: Body | None, *, fingerprint: str, trust: str, flags: tuple[str, ...], redelivered: bool
) -> Message:
    """Return what a reader is shown; a *body* of None did not open, or is not to be seen."""
    unopened = Message(
        id=message_id_text(frame.id),
        cursor=str(frame.row),
        from_=frame.sender,
        from_fingerprint=fingerprint or None,
        from_trust=trust,
        contact=frame.contact,
        to=frame.to,
        received_at=timestamp(frame.received_at),
        type=frame.kind,
        flags=flags,
        redelivered=redelivered,
    )
    if body is None:
        return unopened if frame.kind == "contact_request" else replace(unopened, flags=("undecryptable", *flags))
    # The sender's program promised AIM-TEXT-1; the sender may be another program.
    text, text_changed = reveal(body.text) if body.text else ("", False)
    data, data_changed = reveal(body.data) if body.data else ("", False)
    thread, thread_changed = reveal(body.thread) if body.thread else ("", False)
    return replace(
        unopened,
        thread=thread or None,
        reply_to=message_id_text(MessageId(body.reply_to)) if len(body.reply_to) == 16 else None,
        sent_at=timestamp(body.sent_at),
        expires_at=timestamp(body.expires_at),
        kind=body.kind,
        text=text if body.kind == "text" else None,
        data=_json(data),
        expects_reply=body.expects_reply and "loop" not in flags,
        hops=body.hops,
        flags=("escaped", *flags) if text_changed or data_changed or thread_changed else flags,
        bytes=len((body.text or body.data).encode()),
    )


def _json(text: str) -> object:
    """Return the value of a peer's JSON; the text itself where it is none that every reader can take."""
    if not text:
        return None
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # no overflow to infinity, no half surrogate
    except (ValueError, RecursionError):
        return text
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
