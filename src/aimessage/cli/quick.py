"""The plainest command lines, read without the command-line library: a shell's `send` starts in half the time.

What is not exactly known here is left to `app`, which knows everything: this reads a part of what it reads, and reads
that part alike (a test compares the two).
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

__all__ = ["PlainSend", "read_plain_send", "send_plainly"]

_VALUES = {
    "-t": "to", "--to": "to", "-m": "message", "--message": "message", "-a": "agent", "--agent": "agent",
    "-s": "server", "--server": "server", "--file": "file", "--thread": "thread", "--reply-to": "reply_to",
    "--idempotency-key": "idempotency_key",
}  # fmt: skip
_SWITCHES = {"--json": "json", "--fold": "fold"}
_SHARED = frozenset({"agent", "server", "json"})
_TIMEOUT = timedelta(seconds=30)


class PlainSend(NamedTuple):
    """What one such line says."""

    to: str
    message: str | None = None
    file: str | None = None
    agent: str | None = None
    server: str | None = None
    thread: str | None = None
    reply_to: str | None = None
    idempotency_key: str | None = None
    fold: bool = False
    json: bool = False


def read_plain_send(arguments: Sequence[str], environ: Mapping[str, str]) -> PlainSend | None:
    """Return what a plain `send` says; None if this is another command, or says anything that is not known here."""
    if environ.get("AIMESSAGE_OUTPUT", "") not in ("", "text", "json"):
        return None
    said: dict[str, str | bool] = {}
    words = iter(arguments)
    command = ""
    for word in words:
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if word == "send" and not command:
            command = word
        elif name in _SWITCHES and not equals and (command or _SWITCHES[name] in _SHARED):
            said[_SWITCHES[name]] = True
        elif name in _VALUES and (command or _VALUES[name] in _SHARED):
            value = value if equals else next(words, "")
            if not value or _VALUES[name] in said or (value.startswith("-") and value != "-"):
                return None  # given twice, or perhaps another option
            said[_VALUES[name]] = value
        else:
            return None
    if not command or "to" not in said or ("message" in said) == ("file" in said):
        return None
    return PlainSend(**said)  # type: ignore[arg-type]  # the tables say which is a word and which a switch


def send_plainly(plain: PlainSend, environ: Mapping[str, str]) -> int | None:
    """Send it and print what `send` prints; return the exit code, or None: nothing was done, and `app` has to do it.

    Raises what `send` explains.
    """
    from aimessage.cli.inputs import hops_of_handler, read_body
    from aimessage.cli.render import Screen
    from aimessage.client.config import load_settings
    from aimessage.client.letter import Letter
    from aimessage.client.oneshot import send_once

    screen = Screen(plain.json or environ.get("AIMESSAGE_OUTPUT") == "json", flags_of(plain))
    settings = load_settings(environ, agent=plain.agent, server=plain.server).telling(screen.notice)
    if settings.token is not None or not (settings.directory / "profile.json").exists():
        return None  # an agent that may have to be restored first
    text, _ = read_body(plain.message, Path(plain.file) if plain.file else None, None, fold=plain.fold)
    hops = hops_of_handler(environ)
    letter = Letter(text, None, plain.thread, plain.reply_to, idempotency_key=plain.idempotency_key, hops=hops)
    sent = send_once(settings, plain.to, letter, _TIMEOUT)
    if sent is None:
        return None
    message_id, to, state = sent
    screen.show({"v": 1, "type": "sent", "id": message_id, "to": to, "state": state}, f"Message sent to {to} ({state})")
    return 0


def flags_of(plain: PlainSend) -> tuple[tuple[str, str], ...]:
    """Return the options that a hint has to repeat."""
    chosen = (("--agent", plain.agent), ("--server", plain.server))
    return tuple((flag, value) for flag, value in chosen if value is not None)
