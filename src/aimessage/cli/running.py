"""From a click command into asyncio and back; the event loop is imported only where a command needs it."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from click.exceptions import Exit

from aimessage.cli.failures import INTERRUPTED

__all__ = ["run_async"]

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end on a fresh event loop and return its result; Ctrl-C cancels it in order."""
    import asyncio

    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise Exit(INTERRUPTED) from None  # click would put an empty line on stderr, which is not JSON
