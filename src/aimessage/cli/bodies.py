"""What a message says: from -m, from standard input, from a file, or as JSON; the same for every command that sends."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from aimessage.cli.inputs import parse_json, read_file, read_stdin
from aimessage.errors import BadValue, EmptyMessage

__all__ = ["body_options", "read_body"]

_CommandT = TypeVar("_CommandT", bound=Callable[..., object])


def body_options(command: _CommandT) -> _CommandT:
    """Give *command* --file, --data, --fold and -m."""
    for option in (
        click.option(
            "-m",
            "--message",
            metavar="TEXT",
            help="The text; - reads standard input, which no shell touches. In TEXT the shell replaces $, ` and \\ "
            "first, unless it stands in single quotes, and other users can see it in the list of processes.",
        ),
        click.option("--fold", is_flag=True, help="Replace signs such as © by (c) instead of refusing them."),
        click.option("--data", metavar="JSON", help="Send a JSON value."),
        click.option("--file", type=click.Path(path_type=Path), metavar="FILE", help="Send this file's text."),
    ):
        command = option(command)
    return command


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
