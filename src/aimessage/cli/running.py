"""From a click command to its work and back; the event loop is imported only where a command needs it."""

import gc
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from click.exceptions import Exit

from aimessage.cli.failures import INTERRUPTED

if TYPE_CHECKING:
    from aimessage.cli.options import Shared
    from aimessage.client import Agent
    from aimessage.client.brief import BriefAgent
    from aimessage.client.local import LocalAgent

__all__ = ["run_async", "run_brief", "run_local"]

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end on a fresh event loop and return its result; Ctrl-C cancels it in order."""
    import asyncio

    gc.enable()  # the door has disabled it
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise Exit(INTERRUPTED) from None  # click would put an empty line on stderr, which is not JSON


def run_local(shared: "Shared", work: "Callable[[LocalAgent], Coroutine[Any, Any, T]]") -> T:
    """Run *work* with this command's agent, which needs its own files only; it is restored first, if it has to be."""
    from aimessage.client.local import open_local
    from aimessage.client.waiting import run_blocking

    agent = open_local(shared.settings())
    if agent is None:
        return run_async(_on_loop(shared, work))
    with closing(agent):
        return run_blocking(work(agent))


def run_brief(shared: "Shared", work: "Callable[[Agent | BriefAgent], Coroutine[Any, Any, T]]") -> T:
    """Run *work* with this command's agent, which asks its relay something; on an event loop only if it has to be."""
    from aimessage.client.brief import open_brief
    from aimessage.client.waiting import run_blocking

    agent = open_brief(shared.settings())
    if agent is None:
        return run_async(_on_loop(shared, work))

    gc.freeze()  # what was loaded stays; a `wait` may go on for hours
    gc.enable()

    async def whole() -> T:
        result = await work(agent)
        await agent.finish()
        return result

    try:
        with closing(agent):
            return run_blocking(whole())
    except KeyboardInterrupt:
        raise Exit(INTERRUPTED) from None


async def _on_loop(shared: "Shared", work: "Callable[[Agent], Coroutine[Any, Any, T]]") -> T:
    async with shared.agent_here() as me:
        return await work(me)
