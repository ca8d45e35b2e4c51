"""What follows when a relay is started on a store that somebody has damaged."""

import asyncio
import shutil
from copy import deepcopy
from enum import StrEnum
from pathlib import Path

from endurance.load import Crowd
from endurance.parties import until_cut
from endurance.relays import Lives, url_of
from support.commands import Relay

__all__ = ["PARANOID", "Aftermath", "aftermath_of", "copy_store", "make_store"]

PARANOID = "--paranoid-durability"
_COLLECT_SECONDS = 30


class Aftermath(StrEnum):
    """What an operator and the recipients get to see."""

    WHOLE = "whole"  # everything that was acked arrives
    REFUSED = "refused"  # the relay does not start, and names the damage
    NAMED = "named"  # it starts, and names the damage when it is read
    CRASHED = "crashed"  # it does not start, or ends, and names nothing
    SILENT = "silent"  # something that was acked is missing or altered, and nobody says so


async def make_store(directory: Path, *, letters: int, seed: int) -> tuple[Path, Crowd]:
    """Return a store and its crowd: twice *letters* acked messages of each sender wait, in tables and in the log.

    The relay that made it was killed, and kept the high-water mark.
    """
    crowd, data = Crowd(senders=2, recipients=2, size=300, window=4, seed=seed), directory / "data"
    lives = Lives(data, directory / "making", PARANOID)
    for life in range(2):  # what the first life has left in the log is in a table when the second takes mail
        with lives.relay() as relay:
            if life == 0:
                await crowd.register(url_of(relay))
            await crowd.send(url_of(relay), letters)
            relay.process.kill()
            relay.process.wait()
    return data, crowd


def copy_store(data: Path, target: Path) -> None:
    """Copy a store that nobody has open; sockets that a killed relay has left are no part of it."""
    sockets = {path.name for path in data.rglob("*") if path.is_socket()}
    shutil.copytree(data, target, ignore=lambda _, names: sockets.intersection(names))


async def aftermath_of(data: Path, logs: Path, crowd: Crowd, *flags: str) -> tuple[Aftermath, int]:
    """Start a relay on *data*, have *crowd*'s recipients collect, and return what came of it, and what is missing."""
    heirs = deepcopy(crowd)
    lives = Lives(data, logs, *flags)
    try:
        with lives.relay() as relay:
            await _collect(relay, heirs)
            relay.stop()
            code, log = relay.process.returncode, relay.log_path.read_text()
    except AssertionError as error:
        if "did not start" not in str(error):
            raise
        return (Aftermath.REFUSED if _names_damage(str(error)) else Aftermath.CRASHED), heirs.acked
    verdict = heirs.verdict()
    if code:
        return (Aftermath.NAMED if _names_damage(log) else Aftermath.CRASHED), verdict.lost
    return (Aftermath.WHOLE if verdict.clean else Aftermath.SILENT), verdict.lost


async def _collect(relay: Relay, heirs: Crowd) -> None:
    try:
        async with asyncio.timeout(_COLLECT_SECONDS):
            await until_cut(heirs.collect(url_of(relay)))
    except TimeoutError:
        pass  # what did not come is missing


def _names_damage(log: str) -> bool:
    complaint = "aimessage-server: " in log
    return complaint and "our bug" not in log
