"""Commands at a real pseudo-terminal, and what they would do to it."""

import asyncio
import os
import pty
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType

__all__ = ["ESCAPES", "at_terminal", "obeyed"]

BIN = Path(sys.executable).parent
ESCAPES = (
    "\x1b[31mred\x1b[0m",  # CSI: colours
    "\x1b[2J\x1b[H",  # CSI: clear the screen
    "\x1b]0;title\x07",  # OSC: the window's title
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",  # OSC 8: a link under other words
    "\x1b]52;c;cm0gLXJmIH4=\x07",  # OSC 52: the clipboard
    "\x1bP+q544e\x1b\\",  # DCS: what the terminal answers would be typed into the shell
    "\x1b_payload\x1b\\", "\x1b^payload\x1b\\", "\x1bc", "\x1b7\x1b8",
    "\x9b31m", "\x9d52;c;cm0=\x9c", "\x90+q544e\x9c", "\x85", "\x8d",  # the same as C1
    "\x07\x08\x08\x08", "\x0e\x0f", "over\rwritten", "\x7f", "\x00",
)  # fmt: skip
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")


def obeyed(output: bytes) -> list[str]:
    """Return what of *output* a terminal would obey rather than show; the line ends are the terminal's own."""
    return _CONTROL.findall(output.decode())


async def at_terminal(
    program: str,
    *arguments: str,
    environ: Mapping[str, str] = MappingProxyType({}),
    meanwhile: Callable[[asyncio.subprocess.Process], Awaitable[None]] | None = None,
) -> tuple[int, bytes]:
    """Run one of our programs with all three streams at a pseudo-terminal; return its exit code and what it wrote.

    *meanwhile* is done while it runs.
    """
    ours, theirs = pty.openpty()
    try:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIMESSAGE_")}
        process = await asyncio.create_subprocess_exec(
            BIN / program,
            *arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=inherited | {"TERM": "xterm-256color"} | dict(environ),
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    reading = asyncio.create_task(asyncio.to_thread(_all_of, ours))
    try:
        async with asyncio.timeout(60):
            if meanwhile is not None:
                await meanwhile(process)
            code = await process.wait()
            return code, await reading
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await reading  # which ends with the last process at the terminal
        os.close(ours)


def _all_of(terminal: int) -> bytes:
    output = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # EIO: the last process has closed its side
            return output
        if not chunk:
            return output
        output += chunk
