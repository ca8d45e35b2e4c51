"""What the tools take and give, as types: the JSON Schemas are made of them, and arguments are parsed by them.

Each field is of our own making, but two that a peer fills: `untrusted_text` (the body; of kind data, its
JSON) and `thread`. A field
that has nothing to say is left out, because whoever reads pays for every character; `truncated` and `more_waiting`
never are.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from aimessage.client import Message

__all__ = [
    "Ask",
    "Contacts",
    "Inbox",
    "Known",
    "Listed",
    "Outcome",
    "Page",
    "Person",
    "Piece",
    "Read",
    "Received",
    "Send",
    "Wait",
    "Whoami",
    "piece",
    "received",
    "schema_of",
]

Chars = Annotated[int, Meta(ge=100, le=200_000)]
Seconds = Annotated[float, Meta(ge=0, le=3600)]
Limit = Annotated[int, Meta(ge=1, le=100)]


class Whoami(Struct, forbid_unknown_fields=True):
    """No arguments."""


class Send(Struct, forbid_unknown_fields=True):
    """One message to one agent: text or data."""

    to: str
    text: str | UnsetType = UNSET
    data: Annotated[Any, Meta(description="JSON instead of text")] = UNSET
    thread: str | UnsetType = UNSET
    reply_to: Annotated[str | UnsetType, Meta(description="id of the message that this answers")] = UNSET
    expects_reply: bool = True


class Ask(Struct, forbid_unknown_fields=True):
    """One message whose answer is awaited."""

    to: str
    text: str
    thread: str | UnsetType = UNSET
    timeout: Seconds = 50
    max_chars: Chars = 8000


class Wait(Struct, forbid_unknown_fields=True):
    """What to wait for."""

    sender: str | UnsetType = UNSET
    thread: str | UnsetType = UNSET
    timeout: Seconds = 50
    limit: Limit = 20
    max_chars: Chars = 8000


class Inbox(Struct, forbid_unknown_fields=True):
    """Which part of the inbox."""

    sender: str | UnsetType = UNSET
    thread: str | UnsetType = UNSET
    cursor: str | UnsetType = UNSET
    peek: Annotated[bool, Meta(description="leave them unread")] = False
    limit: Limit = 20
    max_chars: Chars = 8000


class Read(Struct, forbid_unknown_fields=True):
    """Which piece of which message."""

    id: str
    offset: Annotated[int, Meta(ge=0)] = 0
    max_chars: Chars = 8000


class Contacts(Struct, forbid_unknown_fields=True):
    """What to do about contacts."""

    action: Literal["list", "request"] = "list"
    name: Annotated[str | UnsetType, Meta(description="whom to request")] = UNSET
    note: str | UnsetType = UNSET


class Person(Struct):
    """Who we are."""

    agent: str
    username: str
    server: str
    fingerprint: str
    address: str
    contact_policy: str


class Outcome(Struct):
    """What became of a send."""

    id: str
    to: str
    state: str


class Received(Struct, rename={"from_": "from"}):
    """One incoming message."""

    id: str
    from_: str
    from_trust: str
    untrusted_text: str
    truncated: bool
    type: str = "message"
    contact: str = "none"
    kind: str = "text"
    sent_at: str | UnsetType = UNSET
    thread: str | UnsetType = UNSET
    reply_to: str | UnsetType = UNSET
    expects_reply: bool = True
    redelivered: bool = False
    flags: list[str] | UnsetType = UNSET


class Page(Struct):
    """Messages that came."""

    messages: list[Received]
    more_waiting: bool
    truncated: bool
    cursor: str | UnsetType = UNSET


class Piece(Received, rename={"from_": "from"}, kw_only=True):
    """A message, or a piece of it; the next piece begins at next_offset."""

    more_waiting: bool
    next_offset: int | UnsetType = UNSET


class Known(Struct):
    """One contact."""

    name: str
    contact: str
    trust: str | UnsetType = UNSET
    fingerprint: str | UnsetType = UNSET


class Listed(Struct):
    """Our contacts, or what became of a request."""

    contacts: list[Known]
    request_id: str | UnsetType = UNSET


_OPTIONAL = ("sent_at", "thread", "reply_to")
_FULL = ("id", "from_", "from_trust", "truncated", "type", "contact", "kind", "expects_reply", "redelivered")


def received(message: Message) -> Received:
    """Return what a model is shown of *message*; what the peer wrote is in the fields that say so."""
    return Received(**_values(message))


def piece(message: Message, *, more_waiting: bool, next_offset: int | None = None) -> Piece:
    """Return the same of one message alone."""
    following = UNSET if next_offset is None else next_offset
    return Piece(**_values(message), more_waiting=more_waiting, next_offset=following)


def _values(message: Message) -> dict[str, Any]:
    text = message.text
    if text is None and message.data is not None:
        text = json.dumps(message.data, ensure_ascii=False)
    return {
        **{name: getattr(message, name) for name in _FULL},
        **{name: getattr(message, name) or UNSET for name in _OPTIONAL},
        "untrusted_text": text or "",
        "flags": list(message.flags) or UNSET,
    }


def schema_of(kind: type[Struct], *, with_defaults: bool = True) -> dict[str, Any]:
    """Return the JSON Schema of *kind* in one piece, for a reader who pays for it: without titles and bounds.

    What is out of bounds, or unknown, is refused with a sentence all the same.
    """
    (reference,), components = msgspec.json.schema_components([kind])
    dropped = {"title", "additionalProperties", "minimum", "maximum"} | (set() if with_defaults else {"default"})
    schema: dict[str, Any] = _inlined(reference, components, dropped)
    return schema


def _inlined(schema: Any, components: Mapping[str, Any], dropped: set[str]) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(schema, list):
        return [_inlined(each, components, dropped) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        named = components[schema["$ref"].rpartition("/")[2]]
        return _inlined({key: value for key, value in named.items() if key != "description"}, components, dropped)
    return {
        key: {name: _inlined(each, components, dropped) for name, each in value.items()}
        if key == "properties"
        else _inlined(value, components, dropped)
        for key, value in schema.items()
        if key not in dropped and not (key == "required" and not value)
    }
