"""What comes in from outside: durations, files, standard input, JSON. Every read is bounded."""

import io
import os
import re
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final, NoReturn

from aimessage.errors import BadValue, EmptyMessage, TooLarge

__all__ = [
    "MAX_INPUT_BYTES",
    "hops_of_handler",
    "parse_duration",
    "parse_json",
    "read_body",
    "read_file",
    "read_stdin",
    "stdin_is_terminal",
]

MAX_INPUT_BYTES: Final = 64 * 1024
"""No message is longer than this; one byte more is read, to tell a full input from a cut one."""
_UNITS: Final = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|[smhd]?)", re.ASCII)
_LONGEST: Final = timedelta(days=366)


def hops_of_handler(environ: Mapping[str, str]) -> int:
    """Return the hops of what a handler of `listen --exec` sends: one more than those of the message it handles.

    0 outside a handler. So a ring of handlers that pass each other messages ends, whether or not they name what they
    answer.
    """
    told = environ.get("AIMESSAGE_MESSAGE_HOPS", "")
    return min(int(told), 1 << 30) + 1 if told.isascii() and told.isdigit() and len(told) < 20 else 0


def parse_duration(text: str) -> timedelta:
    """Return the duration that *text* names: `30` (seconds), `500ms`, `30s`, `5m`, `1h`, `7d`.

    Raises BadValue: another form, or more than a year.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise BadValue("this is not a duration", hint="write it like 30, 30s, 5m, 1h or 7d")
    duration = timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    if duration > _LONGEST:
        raise BadValue("this duration is longer than a year", hint="write it like 30, 30s, 5m, 1h or 7d")
    return duration


def read_stdin() -> bytes:
    """Return all of standard input.

    Raises TooLarge; BadValue where there is no standard input.
    """
    if sys.stdin is None:
        raise BadValue("standard input is closed", hint="pass the text with -m TEXT or --file PATH")
    return _bounded(sys.stdin.buffer.read(MAX_INPUT_BYTES + 1), "standard input")


def read_file(path: Path) -> bytes:
    """Return the content of *path*.

    Raises TooLarge; BadValue where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _bounded(file.read(MAX_INPUT_BYTES + 1), "the file")
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise BadValue(f"cannot read the file {path}: {reason}", hint=f"ls -l {path}") from error


def parse_json(text: str) -> object:
    """Return the value that *text* is the JSON of.

    Raises BadValue: not JSON (RFC 8259: NaN and Infinity are not), or nested too deeply.
    """
    import json

    try:
        value: object = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadValue("--data is not JSON", hint="""quote it for the shell, like --data '{"done": true}'""") from error
    return value


def stdin_is_terminal() -> bool:
    """Tell whether a person sits at standard input; only then anything may be asked."""
    return isinstance(sys.stdin, io.TextIOBase) and sys.stdin.isatty()


def _bounded(content: bytes, source: str) -> bytes:
    if len(content) > MAX_INPUT_BYTES:
        raise TooLarge(f"{source} has more than {MAX_INPUT_BYTES} bytes")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def read_body(
    message: str | None, file: Path | None, data: str | None, *, fold: bool = False
) -> tuple[str | None, object]:
    """Return the text and None, or None and the JSON value. Raises BadValue, EmptyMessage, NotUtf8, TooLarge."""
    if sum(source is not None for source in (message, file, data)) > 1:
        raise BadValue("more than one message body", hint="pass one of -m TEXT, --file FILE and --data JSON")
    if data is not None:
        return None, parse_json(data)
    from aimessage import client

    if file is not None:
        octets = read_file(file)
    elif message is None:
        raise EmptyMessage("no message")
    else:
        octets = read_stdin() if message == "-" else _argument_bytes(message)
    text = client.decode_text(octets)
    return client.fold(text) if fold else text, None


def _argument_bytes(argument: str) -> bytes:
    return os.fsencode(argument)  # the bytes that the shell passed: what is not UTF-8 is refused, not guessed
