"""`aimessage history`: what was said, both ways, the newest last; within a budget, the newest of it."""

from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

import click

from aimessage.cli.options import Shared, shared_options
from aimessage.cli.render import json_line, message_line
from aimessage.cli.running import run_local
from aimessage.cli.showing import max_chars_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aimessage.cli.render import Screen
    from aimessage.client import Entry
    from aimessage.client.local import LocalAgent

__all__ = ["history", "show_history"]


_WIDEST_CURSOR = "9" * 52


class _Options(TypedDict):
    peer: str | None
    limit: int
    before: str | None
    max_chars: int | None


class _Line(NamedTuple):
    shape: dict[str, object]
    text: str


@click.command(short_help="Show what was sent and received, the newest last.")
@click.option("--with", "peer", metavar="NAME", help="Only messages to and from NAME.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N")
@click.option("--before", metavar="CURSOR", help="Continue before this cursor of an earlier page (see --json).")
@max_chars_option(None)
@shared_options
def history(shared: Shared, **options: Unpack[_Options]) -> None:
    """Show messages both ways.

    The text of a message of ours is kept until it is delivered, so that it can be sent again if need be, and then
    erased; its fate stays. With --max-chars, the newest messages that fit are shown, long ones cut, and a last line
    tells whether there are earlier ones.
    """
    run_local(shared, lambda me: _history(shared, me, options))


async def _history(shared: Shared, me: "LocalAgent", options: _Options) -> None:
    limit = options["limit"]
    entries = me.history(peer=options["peer"], limit=limit + 1, before=options["before"])
    show_history(shared.screen, entries, limit, options["max_chars"])


def show_history(screen: "Screen", entries: "Sequence[Entry]", limit: int, max_chars: int | None) -> None:
    """Print the last *limit* of *entries*, as far as the budget goes, the newest last. Raises OutputClosed."""
    if max_chars is None:
        for entry in entries[-limit:]:
            screen.show(*_whole(entry))
        return
    left = max_chars - _chars(screen, _last(10**3, _WIDEST_CURSOR, more=True, truncated=True))
    lines: list[_Line] = []
    truncated = False
    for entry in reversed(entries[-limit:]):
        line, cut = _fitting(screen, entry, left)
        if line is None:
            break
        left -= _chars(screen, line)
        truncated = truncated or cut
        lines.insert(0, line)
    for line in lines:
        screen.show(*line)
    before = entries[len(entries) - len(lines)].cursor if lines else None
    screen.show(*_last(len(lines), before, more=len(lines) < len(entries), truncated=truncated))


def _fitting(screen: "Screen", entry: "Entry", left: int) -> tuple[_Line | None, bool]:
    from aimessage.client.reading import PREVIEW_CHARS

    whole = _whole(entry)
    if _said_chars(entry) <= PREVIEW_CHARS and _chars(screen, whole) <= left:
        return whole, False
    for longest in (PREVIEW_CHARS, PREVIEW_CHARS // 4, 0):
        line = _whole(entry, longest)
        if _chars(screen, line) <= left:
            return line, True
    return None, False


def _said_chars(entry: "Entry") -> int:
    from aimessage.client.reading import said_chars

    if entry.received is not None:
        return said_chars(entry.received)
    return len((entry.sent.text or entry.sent.data or "") if entry.sent is not None else "")


def _whole(entry: "Entry", longest: int | None = None) -> _Line:
    """Return the line of an entry; with *longest*, no more characters of what it says than that."""
    from msgspec.structs import asdict

    from aimessage.client.reading import preview_of

    if entry.received is not None:
        received = entry.received if longest is None else preview_of(entry.received, longest)
        shape = received.as_json() | {"cursor": entry.cursor}
        return _Line(shape, f"{message_line(shape)} (id {received.id})")
    sent = entry.sent
    assert sent is not None, "an entry is one of ours, or one that came"  # noqa: S101 - so the types say, too
    shape = {"v": 1, "type": "sent", "cursor": entry.cursor, **asdict(sent)}
    said = sent.text or sent.data or f"({sent.bytes} bytes, text erased)"
    if longest is not None and len(said) > longest:
        said = said[:longest]
        shape |= {"text": None if sent.text is None else said, "data": None if sent.data is None else said}
        shape["truncated"] = True
    told = {"from": f"me to {sent.to}", "type": "message", "text": said, "received_at": None}
    return _Line(shape, f"{message_line(shape | told)} [{sent.state}] (id {sent.id})")


def _last(count: int, before: str | None, *, more: bool, truncated: bool) -> _Line:
    shape: dict[str, object] = {
        "v": 1,
        "type": "history",
        "count": count,
        "before": before,
        "more_waiting": more,
        "truncated": truncated,
    }
    earlier = f"; earlier ones: --before {before}" if more else ""
    cut = "; cut ones whole: aimessage read ID" if truncated else ""
    return _Line(shape, f"-- {count} message{'' if count == 1 else 's'}{earlier}{cut}")


def _chars(screen: "Screen", line: _Line) -> int:
    return len(json_line(line.shape) if screen.as_json else screen.line(line.text)) + 1
