"""Looking into the inbox without drowning in it: previews within a budget, and one message whole or by pieces.

Whoever reads pays for every character, so a page never takes more than it was allowed, and what was left out is said:
`truncated` on a message, `more_waiting` on the page.
"""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Final, Self, TypeVar

import msgspec

from aimessage.client import consumers
from aimessage.client.account import Here
from aimessage.client.consumers import Filter
from aimessage.client.message import Message, Replier
from aimessage.client.needs import Intake, Need
from aimessage.errors import BadValue, MessageUnknown
from aimessage.types import message_id_text, parse_message_id

__all__ = [
    "NO_END",
    "PAGE_CHARS",
    "PREVIEW_CHARS",
    "STATES",
    "Budget",
    "InboxPage",
    "Query",
    "Slice",
    "look",
    "next_page",
    "page_of",
    "piece_of",
    "preview_of",
    "said_chars",
    "slice_of",
]

PAGE_CHARS: Final = 8_000
"""What a page may take unless its reader says otherwise: about 2 000 tokens."""
NO_END: Final = 1 << 40
"""A budget that no message exhausts."""
PREVIEW_CHARS: Final = 240
"""How much of each message is shown first; what the budget leaves after that shows the oldest ones whole."""
STATES: Final = {
    "unread": ("new",),
    "shown": ("shown",),
    "handled": ("handled",),
    "dead": ("dead",),
    "past": ("shown", "handled"),
    "all": ("new", "claimed", "answer", "shown", "handled", "dead"),
}
"""What may be asked for, as the vault's own states. Only `unread` messages become shown by being listed."""
MessageT = TypeVar("MessageT", bound=Message)
_THREAD_CHARS = 64
_MOST = 1_000
_SETTLE = timedelta(seconds=5)


class InboxPage(msgspec.Struct, frozen=True):
    """A page of messages, oldest first. The next page is asked for with *cursor*; None where nothing was listed.

    *truncated*: of at least one message, only a part is here. *more_waiting*: more messages fit the question.
    """

    messages: tuple[Message, ...]
    cursor: str | None
    more_waiting: bool
    truncated: bool

    def held_by(self, agent: Replier) -> Self:
        """Return this page with its messages in the hands of *agent*."""
        return msgspec.structs.replace(self, messages=tuple(message.held_by(agent) for message in self.messages))


class Slice(Message, frozen=True):
    """A message, or a piece of it: its text from *offset* on; the next piece begins at *next_offset*, if there is one.

    Both count characters. Of a message of kind data that is not whole, `text` is a piece of its JSON.
    """

    offset: int = 0
    next_offset: int | None = None


class Query(msgspec.Struct, frozen=True):
    """Which messages, and how many at most; *after* is the cursor of a page before."""

    limit: int = 20
    after: str | None = None
    sender: str | None = None
    thread: str | None = None
    state: str | None = None

    def checked(self) -> Self:
        """Return this query if it makes sense. Raises BadValue."""
        self.states()
        self.row()
        return self

    @property
    def is_unread(self) -> bool:
        """Whether it asks for what nobody has been shown: only that becomes shown by being listed."""
        return self.states() == STATES["unread"]

    def states(self) -> tuple[str, ...]:
        """Return the vault's states that are meant. Raises BadValue."""
        found = STATES.get(self.state or "unread")
        if found is None:
            raise BadValue("this is no state of a message", hint=f"use one of: {', '.join(STATES)}")
        return found

    def row(self) -> int:
        """Return the row after which to begin. Raises BadValue: not a cursor of ours, or a limit without sense."""
        if not 1 <= self.limit <= _MOST:
            raise BadValue(f"a page has 1 to {_MOST} messages")
        if self.after is None:
            return 0
        if not (self.after.isascii() and self.after.isdecimal() and len(self.after) <= 18):
            raise BadValue("this is not a cursor", hint="use the cursor of an earlier page of: aimessage inbox --json")
        return int(self.after)


def said_chars(message: Message) -> int:
    """Return how many characters a message says: those of its text, or of its data's JSON."""
    return len(_said(message))


class Budget(msgspec.Struct, frozen=True):
    """How many characters may be spent, and what showing one message costs; a cut message costs less than a whole."""

    chars: int = PAGE_CHARS
    cost: Callable[[Message], int] = said_chars

    def checked(self) -> Self:
        """Return this budget if something can be bought with it. Raises BadValue."""
        if self.chars < 1:
            raise BadValue("a budget has at least one character", hint="leave --max-chars away")
        return self

    def largest(self, cut: Callable[[int], MessageT], longest: int) -> MessageT | None:
        """Return the largest *cut* that can be paid for, of at most *longest* characters; None if not even an empty."""
        low, high, found = 0, longest, None
        while low <= high:
            middle = (low + high) // 2
            piece = cut(middle)
            if self.cost(piece) <= self.chars:
                found, low = piece, middle + 1
            else:
                high = middle - 1
        return found


async def next_page(here: Here, intake: Intake, query: Query, budget: Budget, *, peek: bool) -> InboxPage:
    """Have the mail taken in, then `look`. Raises BadValue, and what stands before the relay if nothing is here."""
    query, budget = query.checked(), budget.checked()  # before the relay is troubled
    peek = peek or not query.is_unread
    await intake.settle(Need.WATCH if peek else Need.RECEIVE, _SETTLE)
    page = look(here, query, budget, claim=not peek)
    if not page.messages and intake.trouble is not None:
        raise intake.trouble  # nothing is here, and nothing can come
    return page


def look(here: Here, query: Query, budget: Budget, *, claim: bool) -> InboxPage:
    """Return one page; with *claim* its unread messages are ours until we show them or give them back.

    Raises BadValue.
    """
    states, after = query.states(), query.row()
    wanted = Filter(query.sender, query.thread)
    if not claim:
        with here.vault.reading() as vault:
            found = [message for _, message in consumers.rows_in(here, vault, states, wanted, after, query.limit + 1)]
        return page_of(found, query.limit, budget)
    with consumers.tidied(here) as vault:
        found = [message for _, message in consumers.rows_in(here, vault, states, wanted, after, query.limit + 1)]
        page = page_of(found, query.limit, budget)
        consumers.take(here, vault, [int(each.cursor) for each in page.messages])
    return page


def slice_of(here: Here, message_id: str, budget: Budget, offset: int) -> tuple[Slice, bool]:
    """Return one message that has come, from *offset* on, as far as the budget goes, and whether it was unread.

    One that was unread is ours then, until we show or give it back.

    Raises MessageUnknown; BadValue: not an id, or an offset behind the end.
    """
    budget = budget.checked()
    wanted = parse_message_id(message_id)
    with consumers.tidied(here) as vault:
        message = consumers.one_in(here, vault, STATES["all"], wanted)
        if message is None:
            raise MessageUnknown(f"no message {message_id_text(wanted)} has come here", hint="aimessage inbox")
        piece = piece_of(message, budget, offset)
        unread = consumers.is_unread(vault, int(message.cursor))
        if unread:
            consumers.take(here, vault, [int(message.cursor)])
    return piece, unread


def piece_of(message: Message, budget: Budget, offset: int) -> Slice:
    """Return *message* from character *offset* on, as far as the budget goes. Raises BadValue: not in it."""
    said = _said(message)
    if not 0 <= offset <= len(said):
        raise BadValue(f"the message has {len(said)} characters", hint=f"aimessage read {message.id}")
    whole = _as_slice(message, offset, None)
    if offset == 0 and budget.cost(whole) <= budget.chars:
        return whole
    found = budget.largest(lambda length: _piece(message, said, offset, length), len(said) - offset)
    return found or _piece(message, said, offset, 0)


def page_of(found: Sequence[Message], limit: int, budget: Budget, *, more: bool = False) -> InboxPage:
    """Return what of *found* (one more than *limit*, if there are as many) the budget pays for; *more*: others wait."""
    shown: list[Message] = []
    left = budget.chars
    for message in islice(found, limit):
        preview = preview_of(message, PREVIEW_CHARS)
        if budget.cost(preview) > left:
            # The first is squeezed, so that every page gets on; a later one finds more room on the next page.
            squeezed = budget.largest(partial(preview_of, message), PREVIEW_CHARS) if not shown else None
            if squeezed is None:
                break
            preview = squeezed
        left -= budget.cost(preview)
        shown.append(preview)
    for at, preview in enumerate(shown):
        whole = found[at]
        if preview.truncated and budget.cost(whole) - budget.cost(preview) <= left:
            left -= budget.cost(whole) - budget.cost(preview)
            shown[at] = whole
    more = more or len(found) > len(shown)
    last = len(shown) - 1
    return InboxPage(
        tuple(message.with_more(more or at < last) for at, message in enumerate(shown)),
        shown[-1].cursor if shown else None,
        more_waiting=more,
        truncated=any(message.truncated for message in shown),
    )


def preview_of(message: Message, longest: int) -> Message:
    """Return *message* with at most *longest* characters of what it says, and of a thread that is no mere name."""
    said = _said(message)
    thread = message.thread
    cut_thread = thread is not None and len(thread) > _THREAD_CHARS
    if len(said) <= longest and not cut_thread:
        return message
    short = thread[:_THREAD_CHARS] if thread is not None else None
    shown = msgspec.structs.replace(message, thread=short, truncated=True)
    return msgspec.structs.replace(shown, text=said[:longest], data=None) if len(said) > longest else shown


def _piece(message: Message, said: str, offset: int, length: int) -> Slice:
    end = offset + length
    preview = preview_of(message, 0) if said else message
    shown = msgspec.structs.replace(preview, text=said[offset:end], data=None, truncated=True)
    return _as_slice(shown, offset, end if end < len(said) else None)


def _as_slice(message: Message, offset: int, following: int | None) -> Slice:
    return Slice(**msgspec.structs.asdict(message), offset=offset, next_offset=following)


def _said(message: Message) -> str:
    if message.text is not None:
        return message.text
    return "" if message.data is None else json.dumps(message.data, ensure_ascii=False)
