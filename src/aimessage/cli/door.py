"""The process `aimessage`: the plainest lines take a short way, all others the whole command line."""

import gc
import os
import sys

from aimessage.cli.quick import PlainSend, Tried, flags_of, read_plain_send, send_directly, send_through_resident

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process and exit."""
    gc.disable()  # most processes end before there is anything to collect; an event loop starts it again
    plain = read_plain_send(sys.argv[1:], os.environ)
    if plain is None or not _run_plainly(plain):
        from aimessage.cli.app import main as run_all

        code = run_all()
        if "asyncio" not in sys.modules:  # nothing runs beside us that would have to be ended first
            _end(code)
        sys.exit(code)


def _run_plainly(plain: PlainSend) -> bool:
    """Send and end the process; return False if that needs more than the short way has."""
    try:
        code = _sent(plain)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as problem:  # noqa: BLE001 - the process's own boundary: each failure ends as one sentence
        code = _failed(plain, problem)
    if code is not None:
        _end(code)
    return False


def _sent(plain: PlainSend) -> int | None:
    tried = send_through_resident(plain, os.environ)
    if not isinstance(tried, Tried):
        return tried
    code = send_directly(plain, tried, os.environ)
    if code is None and plain.message == "-":  # which was read to its end; now `app` reads it
        import io

        sys.stdin = io.TextIOWrapper(io.BytesIO(tried.body))
    return code


def _failed(plain: PlainSend, problem: Exception) -> int:
    from aimessage.cli.endings import quietly_closed, told
    from aimessage.cli.failures import OutputClosed
    from aimessage.cli.render import Screen, prepare_streams

    if isinstance(problem, OutputClosed):
        return quietly_closed()
    prepare_streams()
    return told(Screen(plain.json, flags_of(plain)), problem, os.environ)


def _end(code: int) -> None:
    """End at once: vault and link are closed, and taking a process apart costs as long as sealing a message."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(code)
