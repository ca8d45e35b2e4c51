"""How the commands that print a peer's messages print them: as a line, or fenced for a model; the same for all."""

from typing import TYPE_CHECKING, Final, TypeVar

import click

from aimessage.cli.render import Screen

if TYPE_CHECKING:
    from collections.abc import Callable

    from aimessage.client import Message

__all__ = ["LEAST_CHARS", "cost_on", "max_chars_option", "render_option", "show_message"]

LEAST_CHARS: Final = 1_200
"""The smallest budget: one message with nothing but its fields fits, so that every call gets on."""

_CommandT = TypeVar("_CommandT", bound="Callable[..., object]")


def render_option(command: _CommandT) -> _CommandT:
    """Give *command* --render."""
    return click.option(
        "--render",
        type=click.Choice(["line", "fenced"]),
        default="line",
        show_default=True,
        help="fenced: for a model to read, between lines with a number that no sender can know. --json needs none.",
    )(command)


def max_chars_option(default: int | None) -> "Callable[[_CommandT], _CommandT]":
    """Return the option of a budget for all that the command prints."""
    shown = f"{default:_}".replace("_", " ") if default else "no limit"
    return click.option(
        "--max-chars",
        type=click.IntRange(min=LEAST_CHARS),
        default=default,
        metavar="N",
        help=f"Print at most N characters in all (at least {LEAST_CHARS}; default: {shown}).",
    )


def show_message(screen: Screen, message: "Message", render: str, *, named: bool = False) -> None:
    """Print one message; *named* adds its id to the line. Raises OutputClosed."""
    screen.message(message.as_json(), fence=render == "fenced", tail=_tail(message, named=named))


def cost_on(screen: Screen, render: str) -> "Callable[[Message], int]":
    """Return what showing a message by `show_message`, named, takes of the output, in characters."""
    return lambda message: (
        len(screen.text_of(message.as_json(), fence=render == "fenced", tail=_tail(message, named=True))) + 1
    )


def _tail(message: "Message", *, named: bool) -> str:
    return f" (id {message.id})" if named else ""
