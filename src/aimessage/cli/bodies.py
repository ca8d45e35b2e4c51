"""The options that say what a message says: the same for every command that sends."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

__all__ = ["body_options"]

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
