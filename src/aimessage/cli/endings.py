"""How a command line ends that did not end well: one sentence, a hint, an exit code; or silence, if nobody listens."""

import os
import sys
from collections.abc import Mapping

from aimessage.cli.failures import OutputClosed, explain
from aimessage.cli.render import Screen

__all__ = ["quietly_closed", "told"]


def told(screen: Screen, problem: Exception, environ: Mapping[str, str]) -> int:
    """Say what went wrong and return the exit code."""
    failure = explain(problem)
    try:
        if environ.get("AIMESSAGE_DEBUG"):
            screen.trace(problem)
        screen.fail(failure)
    except OutputClosed:
        quietly_closed()
    return failure.exit_code


def quietly_closed() -> int:
    """Return the exit code of a command whose reader has gone; nothing more is written."""
    # The interpreter flushes both streams when it ends; into the void, or it would complain about the broken pipe.
    void = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(void, stream.fileno())
        except (OSError, ValueError, AttributeError):
            continue
    os.close(void)
    return 1
