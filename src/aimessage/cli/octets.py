"""The octets of a body, from wherever they come: every read is bounded.

Every send loads this, so it imports nothing that it could do without.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_INPUT_BYTES", "hops_of_handler", "read_file", "read_octets", "read_stdin"]

MAX_INPUT_BYTES = 64 * 1024
"""No message is longer than this; one byte more is read, to tell a full input from a cut one."""


def read_octets(message: str | None, file: str | None) -> bytes:
    """Return the content of *file*, or *message*, or standard input if that is `-`.

    Raises EmptyMessage: there is neither; TooLarge; BadValue: it cannot be read.
    """
    if file is not None:
        return read_file(file)
    if message is None:
        from aimessage.errors import EmptyMessage

        raise EmptyMessage("no message")
    # The bytes that the shell passed: what is not UTF-8 is refused, not guessed.
    return read_stdin() if message == "-" else os.fsencode(message)


def read_stdin() -> bytes:
    """Return all of standard input.

    Raises TooLarge; BadValue where there is no standard input.
    """
    if sys.stdin is None:
        from aimessage.errors import BadValue

        raise BadValue("standard input is closed", hint="pass the text with -m TEXT or --file PATH")
    return _bounded(sys.stdin.buffer.read(MAX_INPUT_BYTES + 1), "standard input")


def read_file(path: str) -> bytes:
    """Return the content of *path*.

    Raises TooLarge; BadValue where it cannot be read.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs a quick command as long as it has
            return _bounded(file.read(MAX_INPUT_BYTES + 1), "the file")
    except OSError as error:
        from pathlib import Path

        from aimessage.errors import BadValue

        reason = (error.strerror or "it cannot be read").lower()
        raise BadValue(f"cannot read the file {Path(path)}: {reason}", hint=f"ls -l {Path(path)}") from error


def hops_of_handler(environ: "Mapping[str, str]") -> int:
    """Return the hops of what a handler of `listen --exec` sends: one more than those of the message it handles.

    0 outside a handler. So a ring of handlers that pass each other messages ends, whether or not they name what they
    answer.
    """
    told = environ.get("AIMESSAGE_MESSAGE_HOPS", "")
    return min(int(told), 1 << 30) + 1 if told.isascii() and told.isdigit() and len(told) < 20 else 0


def _bounded(content: bytes, source: str) -> bytes:
    if len(content) > MAX_INPUT_BYTES:
        from aimessage.errors import TooLarge

        raise TooLarge(f"{source} has more than {MAX_INPUT_BYTES} bytes")
    return content
