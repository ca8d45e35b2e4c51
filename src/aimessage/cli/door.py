"""The process `aimessage`: the plainest lines take a short way, all others the whole command line."""

import gc
import os
import sys
from typing import NoReturn

from aimessage.cli.quick import PlainSend, flags_of, read_plain_send, send_plainly

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit."""
    plain = read_plain_send(sys.argv[1:], os.environ)
    if plain is not None:
        _run_plainly(plain)
    from aimessage.cli.app import main as run_all

    run_all()


def _run_plainly(plain: PlainSend) -> None:
    """Send and end the process; return if that needs more than the short way has."""
    from aimessage.cli.endings import quietly_closed, told
    from aimessage.cli.failures import INTERRUPTED, OutputClosed
    from aimessage.cli.render import Screen, prepare_streams

    gc.disable()  # this process ends before there is anything to collect
    prepare_streams()
    try:
        code = send_plainly(plain, os.environ)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OutputClosed:
        code = quietly_closed()
    except Exception as problem:  # noqa: BLE001 - the process's own boundary: each failure ends as one sentence
        as_json = plain.json or os.environ.get("AIMESSAGE_OUTPUT") == "json"
        code = told(Screen(as_json, flags_of(plain)), problem, os.environ)
    if code is not None:
        _end(code)
    gc.enable()


def _end(code: int) -> NoReturn:
    """End at once: vault and link are closed, and taking a process apart costs as long as sealing a message."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(code)
