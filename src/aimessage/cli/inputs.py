"""What comes in from outside: durations, files, standard input, JSON. Every read is bounded."""

import io
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final, NoReturn

from aimessage.cli.octets import read_octets
from aimessage.errors import BadValue

__all__ = ["parse_duration", "parse_json", "read_body", "stdin_is_terminal", "text_of"]

_UNITS: Final = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|[smhd]?)"
_LONGEST: Final = timedelta(days=366)


def parse_duration(text: str) -> timedelta:
    """Return the duration that *text* names: `30` (seconds), `500ms`, `30s`, `5m`, `1h`, `7d`.

    Raises BadValue: another form, or more than a year.
    """
    found = re.fullmatch(_DURATION, text, re.ASCII)
    if found is None:
        raise BadValue("this is not a duration", hint="write it like 30, 30s, 5m, 1h or 7d")
    duration = timedelta(seconds=float(found[1]) * _UNITS[found[2]])
    if duration > _LONGEST:
        raise BadValue("this duration is longer than a year", hint="write it like 30, 30s, 5m, 1h or 7d")
    return duration


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
    return text_of(read_octets(message, None if file is None else str(file)), fold=fold), None


def text_of(octets: bytes, *, fold: bool = False) -> str:
    """Return the text of a body; with *fold*, some of what the text profile refuses is replaced. Raises NotUtf8."""
    from aimessage import client

    text = client.decode_text(octets)
    return client.fold(text) if fold else text
