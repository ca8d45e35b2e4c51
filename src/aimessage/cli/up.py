"""`aimessage up` and `down`: an agent's resident, which makes its sends quick."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aimessage.cli.durations import DURATION
from aimessage.cli.options import Shared, shared_options
from aimessage.cli.running import run_async

if TYPE_CHECKING:
    from aimessage.client import Profile

__all__ = ["down", "up"]

_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_WHY = {
    "stopped": "told to stop",
    "idle": "nothing was sent for so long",
    "replaced": "the agent's files are others now",
}


@click.command(short_help="Keep this agent's link and vault warm: its sends are quicker.")
@click.option(
    "--idle",
    type=DURATION,
    default=timedelta(minutes=15),
    metavar="15m",
    help="Stop after so long without a send; 0: never.",
)
@click.option("--foreground", is_flag=True, help="Stay here instead of going into the background.")
@shared_options
def up(shared: Shared, idle: timedelta, *, foreground: bool) -> int:
    """Start this agent's resident: a process that keeps link, session and vault warm for `send`.

    It is used when it is there and never needed: whatever goes wrong with it, the command sends the message itself.
    It opens the agent once, passphrase included, as ssh-agent does; only this user reaches it. It receives nothing:
    mail waits for `wait`, `listen` and `inbox`. `aimessage down` stops it, and so does the end of --idle.
    """
    if foreground:
        return run_async(_stay(shared, idle))
    return run_async(_launch(shared, idle))


@click.command(short_help="Stop this agent's resident.")
@shared_options
def down(shared: Shared) -> int:
    """Stop this agent's resident, if it has one; what is under way goes on without it."""
    return run_async(_dismiss(shared))


async def _stay(shared: Shared, idle: timedelta) -> int:
    import asyncio

    from aimessage.client.resident.calling import holder
    from aimessage.client.resident.resident import stay

    profile = await _opened(shared)

    def ready(end: Callable[[], None]) -> None:
        for each in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(each, end)
        _show(shared, profile, pid=os.getpid(), was_up=False)

    environ = dict(os.environ)
    if shared.ca_file is not None:  # whoever believes other authorities goes by itself
        environ["AIMESSAGE_CA_FILE"] = str(shared.ca_file)
    why = await stay(shared.settings(), environ, idle, ready)
    if why == "there":
        return _show(shared, profile, pid=_pid(profile) or holder(profile.directory), was_up=True)
    shared.screen.talk(f"{profile.username} is down: {_WHY[why]}")
    return 0


async def _launch(shared: Shared, idle: timedelta) -> int:
    profile = await _opened(shared)  # what is wrong with the agent is told here
    if (pid := _pid(profile)) is not None:
        return _show(shared, profile, pid=pid, was_up=True)
    log = profile.directory / "resident.log"
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600), "wb") as talk:
        child = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command; nobody waits here but for it
            [sys.executable, "-m", "aimessage.cli", "up", "--foreground", *_said(shared, idle)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=talk,
            start_new_session=True,
        )
    return await _started(shared, profile, child, log)


async def _started(shared: Shared, profile: "Profile", child: "subprocess.Popen[bytes]", log: Path) -> int:
    import asyncio

    from aimessage.client.resident.calling import holder, silent
    from aimessage.errors import Broken

    try:
        async with asyncio.timeout(_START_SECONDS):
            while (pid := _pid(profile)) is None:
                if (code := child.poll()) is not None and code > 0:
                    shared.screen.passed_on(log.read_text("utf-8", "replace"))  # noqa: ASYNC240 - a line or two
                    return code
                if code is not None and code < 0:
                    raise Broken("the resident was killed before it was up", hint="aimessage up --foreground")
                if code == 0 and holder(profile.directory) is None:  # --idle was over at once
                    return _show(shared, profile, pid=None, was_up=True)
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        if child.poll() is None:
            child.kill()
            raise Broken("the resident did not start in time", hint="aimessage up --foreground") from None
        raise silent(profile.directory) from None  # another one, which was there before
    return _show(shared, profile, pid=pid, was_up=pid != child.pid)


async def _dismiss(shared: Shared) -> int:
    from aimessage.client.profile import load_profile
    from aimessage.client.resident.calling import dismiss

    profile = load_profile(shared.settings())
    return _show(shared, profile, pid=None, was_up=await dismiss(profile.directory))


async def _opened(shared: Shared) -> "Profile":
    """Open the agent once, restored if it has to be, and return its profile."""
    async with shared.agent_here() as me:
        return me.profile


def _pid(profile: "Profile") -> int | None:
    from aimessage.client.resident.calling import look_for

    seen = look_for(profile.directory)
    return seen.pid if seen is not None else None


def _said(shared: Shared, idle: timedelta) -> list[str]:
    """Return the options of the process in the background: those of this one."""
    options = [
        ("--agent", shared.agent),
        ("--server", shared.server),
        ("--passphrase-file", shared.passphrase_file),
        ("--ca-file", shared.ca_file),
    ]
    said = [f"--idle={idle // timedelta(milliseconds=1)}ms"]
    said += [f"{name}={value}" for name, value in options if value is not None]
    return said + ["--json"] * shared.screen.as_json


def _show(shared: Shared, profile: "Profile", *, pid: int | None, was_up: bool) -> int:
    shape = {
        "v": 1, "type": "resident", "agent": profile.agent, "username": profile.username,
        "state": "down" if pid is None else "up", "pid": pid, "was_up": was_up,
    }  # fmt: skip
    if pid is None:
        line = f"{profile.username} is down" if was_up else f"{profile.username} was not up"
    else:
        line = f"{profile.username} is up already (pid {pid})" if was_up else f"{profile.username} is up (pid {pid})"
    shared.screen.show(shape, line)
    return 0
