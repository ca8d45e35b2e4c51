"""The commands as a shell runs them: a whole process, from its start to the relay's word that it has the message."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Sample
from benchmarks.floors import PYTHON_WITH_CRYPTO, USER_BIN, run_ms
from support.commands import Home, running_relay

__all__ = ["send"]


def send(directory: Path) -> Iterator[Sample]:
    """`aimessage send` to a peer that is known, over and over, each time a new process."""
    with running_relay(directory / "relay", "--mailbox-sender-share", "0") as relay:
        home = Home(directory / "home")
        for name in ("alice", "bobby"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        command = (USER_BIN / "aimessage", "send", "-a", "alice", "-t", "bobby", "-m")
        environ = {"AIMESSAGE_HOME": str(home.path)}
        run_ms(*command, "the first one makes the session", repeat=1, **environ)
        taken = [run_ms(*command, f"message {number}", repeat=1, **environ) for number in range(15)]
    yield Sample("cold send from the shell", sorted(taken)[7], "ms", PYTHON_WITH_CRYPTO, bar=2.5, of_floor=True)
