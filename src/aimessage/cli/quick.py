"""The plainest command lines, read without the command-line library: a shell's `send` starts in half the time.

What is not exactly known here is left to `app`, which knows everything: this reads a part of what it reads, and reads
that part alike (a test compares the two). Where the agent has a resident, a send needs no more than this and a socket:
nothing is imported here that it could do without.
"""

import os
import sys

from aimessage.cli.octets import hops_of_handler, read_octets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PlainSend", "Tried", "flags_of", "read_plain_send", "send_directly", "send_through_resident"]

_VALUES = {
    "-t": "to", "--to": "to", "-m": "message", "--message": "message", "-a": "agent", "--agent": "agent",
    "-s": "server", "--server": "server", "--file": "file", "--thread": "thread", "--reply-to": "reply_to",
    "--idempotency-key": "idempotency_key",
}  # fmt: skip
_SWITCHES = {"--json": "json", "--fold": "fold"}
_SHARED = frozenset({"agent", "server", "json"})
_LIMIT_SECONDS = 30


class PlainSend:
    """What one such line says; *json* includes what the environment says of the output."""

    to: str = ""
    message: str | None = None
    file: str | None = None
    agent: str | None = None
    server: str | None = None
    thread: str | None = None
    reply_to: str | None = None
    idempotency_key: str | None = None
    fold: bool = False
    json: bool = False

    def __init__(self, **said: str | bool | None) -> None:
        vars(self).update(said)


class Tried:
    """A send that has begun: its body, which may have come from a pipe, and the id under which it may be under way."""

    def __init__(self, body: bytes, message_id: bytes | None = None) -> None:
        self.body = body
        self.message_id = message_id


def read_plain_send(arguments: "Sequence[str]", environ: "Mapping[str, str]") -> PlainSend | None:
    """Return what a plain `send` says; None if this is another command, or says anything that is not known here."""
    output = environ.get("AIMESSAGE_OUTPUT", "")
    said = _said(arguments) if output in ("", "text", "json") else None
    if said is None or "to" not in said or ("message" in said) == ("file" in said):
        return None
    return PlainSend(**said | ({"json": True} if output == "json" else {}))


def _said(arguments: "Sequence[str]") -> dict[str, str | bool] | None:
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
    return said if command else None


def send_through_resident(plain: PlainSend, environ: "Mapping[str, str]") -> int | Tried:
    """Have the agent's resident send it, print what `send` prints and return the exit code; or what was tried.

    Raises what `send` explains.
    """
    body = read_octets(plain.message, plain.file)
    directory = _directory(plain, environ)
    if directory is None or environ.get("AIMESSAGE_DEBUG"):
        return Tried(body)
    from aimessage import __version__
    from aimessage.client.resident import door

    if not os.path.exists(os.path.join(directory, door.DOOR)):  # noqa: PTH110, PTH118 - as above
        return Tried(body)
    chosen = os.urandom(16)
    words = {
        "ask": b"send", "version": __version__.encode(), "id": chosen, "body": body, "to": os.fsencode(plain.to),
        "hops": str(hops_of_handler(environ)).encode(), "dialling": door.dialling_words(environ),
        "server": os.fsencode(plain.server or environ.get("AIMESSAGE_SERVER") or ""), "fold": b"1" * plain.fold,
    }  # fmt: skip
    for name in ("thread", "reply_to", "idempotency_key"):
        if (value := getattr(plain, name)) is not None:
            words[name] = os.fsencode(value)
    tried = Tried(body, chosen)
    for answer in door.answers(directory, words, last_seconds=_LIMIT_SECONDS + 5):
        match answer.get("said"):
            case b"saved":
                tried.message_id = answer["id"]
            case b"done":
                _notices(plain, answer)
                return _told(plain, *(answer[name].decode() for name in ("id", "to", "state")))
            case b"failed":
                from aimessage.client.resident.errands import refused_error

                _notices(plain, answer)
                raise refused_error(answer)
    return tried


def send_directly(plain: PlainSend, tried: Tried, environ: "Mapping[str, str]") -> int | None:
    """Send it and print what `send` prints; return the exit code, or None: nothing was done, and `app` has to do it.

    Raises what `send` explains.
    """
    from datetime import timedelta

    from aimessage.cli.inputs import text_of
    from aimessage.cli.render import Screen, prepare_streams
    from aimessage.client.config import load_settings
    from aimessage.client.letter import Letter
    from aimessage.client.oneshot import send_once

    prepare_streams()
    notice = Screen(plain.json, flags_of(plain)).notice
    settings = load_settings(environ, agent=plain.agent, server=plain.server).telling(notice)
    if not (settings.directory / "profile.json").exists():
        return None  # an agent that may have to be restored first
    text = text_of(tried.body, fold=plain.fold)
    letter = Letter(
        text, None, plain.thread, plain.reply_to, idempotency_key=plain.idempotency_key, hops=hops_of_handler(environ)
    )
    sent = send_once(settings, plain.to, letter, timedelta(seconds=_LIMIT_SECONDS), chosen=tried.message_id)
    return None if sent is None else _told(plain, *sent)


def flags_of(plain: PlainSend) -> tuple[tuple[str, str], ...]:
    """Return the options that a hint has to repeat."""
    chosen = (("--agent", plain.agent), ("--server", plain.server))
    return tuple((flag, value) for flag, value in chosen if value is not None)


def _directory(plain: PlainSend, environ: "Mapping[str, str]") -> str | None:
    """Return the agent's directory, as `client.config` finds it; None if its name has to be looked at closely."""
    name = plain.agent or environ.get("AIMESSAGE_AGENT") or "default"
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
        return None
    home = environ.get("AIMESSAGE_HOME") or os.path.expanduser("~/.aimessage")  # noqa: PTH111 - as above
    return os.path.join(home, "agents", name)  # noqa: PTH118 - as above


def _told(plain: PlainSend, message_id: str, to: str, state: str) -> int:
    """Print the outcome, which is letters, digits and what stands here, and return the exit code of a success.

    Raises OutputClosed.
    """
    line = f"Message sent to {to} ({state})"
    if plain.json:
        line = f'{{"v":1,"type":"sent","id":"{message_id}","to":"{to}","state":"{state}"}}'
    if sys.stdout is not None:  # the caller may have closed it
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except BrokenPipeError as gone:
            from aimessage.cli.failures import OutputClosed

            raise OutputClosed from gone
    return 0


def _notices(plain: PlainSend, answer: "Mapping[str, bytes]") -> None:
    if answer["notices"]:
        from aimessage.cli.render import Screen, prepare_streams

        prepare_streams()
        for notice in answer["notices"].decode().split("\n"):
            Screen(plain.json, flags_of(plain)).notice(notice)
