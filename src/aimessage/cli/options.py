"""The options that every command shares; they work before and after the subcommand, and the later one wins."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import click

from aimessage.cli.render import Screen
from aimessage.errors import BadValue

if TYPE_CHECKING:
    from aimessage import client
    from aimessage.client.config import Settings

__all__ = ["Shared", "begin", "output_is_json", "said_flags", "shared_options"]

P = ParamSpec("P")
R = TypeVar("R")
_REPEATED = {"agent": "--agent", "server": "--server", "passphrase_file": "--passphrase-file"}
_said: ContextVar[Mapping[str, str]] = ContextVar("said", default=MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Shared:
    """What the shared options said; None where the environment or the remembered value decides."""

    agent: str | None
    server: str | None
    passphrase_file: Path | None
    ca_file: Path | None
    screen: Screen

    def settings(self, *, token_file: Path | None = None) -> "Settings":
        """Return what this command runs with: flag before environment before what was remembered.

        Raises BadValue: a setting without meaning.
        """
        from aimessage.client.config import load_settings

        settings = load_settings(
            os.environ,
            agent=self.agent,
            server=self.server,
            token_file=token_file,
            passphrase_file=self.passphrase_file,
            ca_file=self.ca_file,
        )
        return settings.telling(self.screen.notice)

    def agent_here(self) -> "client.connect":
        """Return the context that opens this command's agent; what it mends by itself is told on stderr."""
        from aimessage import client

        return client.connect(self.settings(), notice=self.screen.notice)


def output_is_json(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Tell whether failures are to be JSON; looks at the raw arguments, because a usage error precedes parsing."""
    return "--json" in arguments or environ.get("AIMESSAGE_OUTPUT") == "json"


def shared_options(function: Callable[Concatenate[Shared, P], R]) -> Callable[P, R]:
    """Give *function* the shared options and, as its first argument, what they said here and further left."""

    @functools.wraps(function)
    def with_shared(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(_collect(click.get_current_context()), *args, **kwargs)

    for option in reversed(_OPTIONS):
        option(with_shared)
    return with_shared


def begin() -> None:
    """Forget what an earlier command line of this process said."""
    _said.set({})


def said_flags() -> tuple[tuple[str, str], ...]:
    """Return the options that choose agent and relay, as they were given so far, each with its value."""
    said = _said.get()
    return tuple((flag, said[name]) for name, flag in _REPEATED.items() if name in said)


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None:
        context.meta[f"{__name__}.{parameter.name}"] = value
        if parameter.name in _REPEATED:
            _said.set({**_said.get(), parameter.name: str(value)})


def _collect(context: click.Context) -> Shared:
    def said(name: str) -> object:
        return context.meta.get(f"{__name__}.{name}")

    agent, server, passphrase, ca_file = said("agent"), said("server"), said("passphrase_file"), said("ca_file")
    return Shared(
        agent if isinstance(agent, str) else None,
        server if isinstance(server, str) else None,
        passphrase if isinstance(passphrase, Path) else None,
        ca_file if isinstance(ca_file, Path) else None,
        Screen(as_json=bool(said("json")) or _environment_says_json(os.environ), flags=said_flags()),
    )


def _environment_says_json(environ: Mapping[str, str]) -> bool:
    match environ.get("AIMESSAGE_OUTPUT", ""):
        case "json":
            return True
        case "" | "text":
            return False
        case _:
            raise BadValue("AIMESSAGE_OUTPUT is neither text nor json", hint="unset AIMESSAGE_OUTPUT")


_OPTIONS = (
    click.option(
        "-a",
        "--agent",
        metavar="NAME",
        help="Which identity on this machine (default: default).",
        callback=_remember,
        expose_value=False,
    ),
    click.option(
        "-s",
        "--server",
        metavar="URL",
        help="The relay, ws://… or wss://…; remembered by register.",
        callback=_remember,
        expose_value=False,
    ),
    click.option(
        "--passphrase-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The file with the passphrase that seals the token file.",
        callback=_remember,
        expose_value=False,
    ),
    click.option(
        "--ca-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Believe only these authorities for wss://, in PEM form (or AIMESSAGE_CA_FILE).",
        callback=_remember,
        expose_value=False,
    ),
    click.option(
        "--json",
        is_flag=True,
        default=None,
        help="One flat JSON object a line (or AIMESSAGE_OUTPUT=json).",
        callback=_remember,
        expose_value=False,
    ),
)
