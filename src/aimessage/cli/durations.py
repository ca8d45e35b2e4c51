"""The option type of durations."""

from datetime import timedelta
from typing import Final

import click

from aimessage.cli.inputs import parse_duration

__all__ = ["DURATION"]


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        return value if isinstance(value, timedelta) else parse_duration(str(value))


DURATION: Final = _Duration()
"""As `inputs.parse_duration` reads it."""
