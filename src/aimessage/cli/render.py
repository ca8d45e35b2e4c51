"""The only place that prints. stdout is data, stderr is talk; both are UTF-8, whatever the locale says.

What a peer or a relay wrote is shown, never obeyed: no control character of it reaches a terminal. A second line of
a message is indented, so that no body can forge the line of another message.
"""

import io
import json
import re
import sys
import traceback
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TextIO

from aimessage.cli.failures import Failure, OutputClosed

__all__ = ["Screen", "json_line", "message_line", "neutralise", "prepare_streams"]

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SUSPECT = re.compile(r"[^\n\t\x20-\x7e]")


def neutralise(text: str) -> str:
    """Return *text* with every control, format and unassigned character as `\\u{…}`; newline and tab stay."""
    return _SUSPECT.sub(lambda hit: f"\\u{{{ord(hit[0]):x}}}" if _is_unseen(hit[0]) else hit[0], text)


def json_line(shape: Mapping[str, object]) -> str:
    """Return *shape* as one line of JSON that is safe on a terminal: what cannot be seen is escaped."""
    line = json.dumps(shape, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _SUSPECT.sub(lambda hit: json.dumps(hit[0])[1:-1] if _is_unseen(hit[0]) else hit[0], line)


def message_line(message: Mapping[str, object]) -> str:
    """Return the human line of a message object: `[10:45:15] alice: …`, in local time."""
    moment = message["sent_at"] or message["received_at"]  # what does not open has no time of its own
    stamp = datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S") if isinstance(moment, str) else "--:--:--"
    return f"[{stamp}] {message['from']}: {_body(message)}"


def _body(message: Mapping[str, object]) -> str:
    if message["type"] == "contact_request":
        name = message["from"]
        return (
            f"(wants to write to us, key {message['from_fingerprint']}; to hear it: aimessage contacts accept {name})"
        )
    if message["type"] != "message":
        return f"({message['type']})"
    text = message["text"]
    return text if isinstance(text, str) else json.dumps(message["data"], ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Screen:
    """Where a command's results go, as text for people or as one flat JSON object a line."""

    as_json: bool

    def show(self, shape: Mapping[str, object], line: str) -> None:
        """Print one result on stdout, at once: *shape* as JSON, or *line* for people.

        Raises OutputClosed: nobody reads any more.
        """
        _write(sys.stdout, json_line(shape) if self.as_json else _for_people(line))

    def talk(self, line: str) -> None:
        """Say *line* to a person, on stderr; a program that asked for JSON is not talked to."""
        if not self.as_json:
            _write(sys.stderr, _for_people(line))

    def notice(self, line: str) -> None:
        """Say on stderr what was noticed and mended: the caller should know, and need do nothing."""
        _write(sys.stderr, json_line({"notice": line}) if self.as_json else _for_people(f"note: {line}"))

    def fail(self, failure: Failure) -> None:
        """Print *failure* on stderr: one sentence and its hint."""
        if self.as_json:
            _write(sys.stderr, json_line(failure.as_json()))
            return
        recipient = f"to {failure.to}: " if failure.to is not None else ""
        _write(sys.stderr, _for_people(f"error: {recipient}{failure.message}"))
        if failure.hint is not None:
            _write(sys.stderr, _for_people(f"hint: {failure.hint}"))

    def trace(self, problem: BaseException) -> None:
        """Print where *problem* came from, for whoever repairs it; only on request."""
        _write(sys.stderr, _for_people("".join(traceback.format_exception(problem)).rstrip("\n")))


def prepare_streams() -> None:
    """Make both streams UTF-8; a character that cannot be encoded is escaped, never an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN


def _for_people(line: str) -> str:
    return neutralise(line).replace("\n", "\n    ")


def _write(stream: TextIO | None, line: str) -> None:
    if stream is None:  # the caller closed it (`>&-`) before we started: it wants no output
        return
    try:
        stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError as gone:
        raise OutputClosed from gone
