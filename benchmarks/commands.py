"""The commands as a shell runs them: a whole process, from its start to the relay's word that it has the message."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Sample
from benchmarks.floors import BARE_PYTHON, PYTHON_WITH_CRYPTO, USER_BIN, run_ms
from support.commands import Home, running_relay

__all__ = ["looks", "send"]


def send(directory: Path) -> Iterator[Sample]:
    """`aimessage send` to a peer that is known, over and over, each time a new process: alone, and with a resident."""
    with running_relay(directory / "relay", "--mailbox-sender-share", "0") as relay:
        home = Home(directory / "home")
        for name in ("alice", "bobby"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        command = (USER_BIN / "aimessage", "send", "-a", "alice", "-t", "bobby", "-m")
        environ = {"AIMESSAGE_HOME": str(home.path)}
        run_ms(*command, "the first one makes the session", repeat=1, **environ)
        cold = [run_ms(*command, f"message {number}", repeat=1, **environ) for number in range(15)]
        home.run("up", "-a", "alice").ok()
        warm = [run_ms(*command, f"again {number}", repeat=1, **environ) for number in range(15)]
        home.run("down", "-a", "alice").ok()
    yield Sample("cold send from the shell", sorted(cold)[7], "ms", PYTHON_WITH_CRYPTO, bar=2.5, of_floor=True)
    yield Sample("send with aimessage up", sorted(warm)[7], "ms", BARE_PYTHON, bar=4, of_floor=True)


def looks(directory: Path) -> Iterator[Sample]:
    """The commands that look and end: one message is taken in, read again, and its fate told."""
    with running_relay(directory / "relay", "--mailbox-sender-share", "0") as relay:
        home = Home(directory / "home")
        for name in ("alice", "bobby"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        taken: dict[str, list[float]] = {"inbox": [], "read": [], "status": [], "status --offline": []}
        for number in range(9):
            sent = home.run("send", "-a", "alice", "-t", "bobby", "-m", f"message {number}", "--json").ok().objects()
            message_id = str(sent[0]["id"])
            for command, times in taken.items():
                agent = "alice" if command.startswith("status") else "bobby"
                words = [*command.split(), *([] if command == "inbox" else [message_id])]
                environ = {"AIMESSAGE_HOME": str(home.path)}
                times.append(run_ms(USER_BIN / "aimessage", *words, "-a", agent, repeat=1, **environ))
    for command, times in taken.items():
        yield Sample(f"cold {command} from the shell", sorted(times)[len(times) // 2], "ms", PYTHON_WITH_CRYPTO)
