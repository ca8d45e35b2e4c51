"""The commands as a shell runs them: a whole process, from its start to the relay's word that it has the message.

Each run is preceded by one of its floor: a machine whose pace changes within seconds slows both.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.figures import Sample
from benchmarks.floors import BARE_PYTHON, PYTHON_WITH_CRYPTO, USER_BIN, bare_ms, run_ms, with_crypto_ms
from support.commands import Home, running_relay

__all__ = ["looks", "send"]

_SEND_FLOOR = f"{PYTHON_WITH_CRYPTO}, in turn with send"
_UP_FLOOR = f"{BARE_PYTHON}, in turn with send"
_LOOKS_FLOOR = f"{PYTHON_WITH_CRYPTO}, in turn with the looks"


def send(directory: Path) -> Iterator[Sample]:
    """`aimessage send` to a peer that is known, over and over, each time a new process: alone, and with a resident."""
    with running_relay(directory / "relay", "--mailbox-sender-share", "0") as relay:
        home = Home(directory / "home")
        for name in ("alice", "bobby"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        command = (USER_BIN / "aimessage", "send", "-a", "alice", "-t", "bobby", "-m")
        environ = {"AIMESSAGE_HOME": str(home.path)}
        run_ms(*command, "the first one makes the session", repeat=1, **environ)
        cold, crypto, warm, bare = list[float](), list[float](), list[float](), list[float]()
        for number in range(15):
            crypto.append(with_crypto_ms(1))
            cold.append(run_ms(*command, f"message {number}", repeat=1, **environ))
        home.run("up", "-a", "alice").ok()
        for number in range(15):
            bare.append(bare_ms(1))
            warm.append(run_ms(*command, f"again {number}", repeat=1, **environ))
        home.run("down", "-a", "alice").ok()
    yield Sample(_SEND_FLOOR, median(crypto), "ms")
    yield Sample("cold send from the shell", median(cold), "ms", _SEND_FLOOR, bar=2.5, of_floor=True)
    yield Sample(_UP_FLOOR, median(bare), "ms")
    yield Sample("send with aimessage up", median(warm), "ms", _UP_FLOOR, bar=4, of_floor=True)


def looks(directory: Path) -> Iterator[Sample]:
    """The commands that look and end: one message is taken in, read again, and its fate told."""
    with running_relay(directory / "relay", "--mailbox-sender-share", "0") as relay:
        home = Home(directory / "home")
        for name in ("alice", "bobby"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        taken: dict[str, list[float]] = {"inbox": [], "read": [], "status": [], "status --offline": []}
        crypto = []
        for number in range(9):
            sent = home.run("send", "-a", "alice", "-t", "bobby", "-m", f"message {number}", "--json").ok().objects()
            message_id = str(sent[0]["id"])
            crypto.append(with_crypto_ms(1))
            for command, times in taken.items():
                agent = "alice" if command.startswith("status") else "bobby"
                words = [*command.split(), *([] if command == "inbox" else [message_id])]
                environ = {"AIMESSAGE_HOME": str(home.path)}
                times.append(run_ms(USER_BIN / "aimessage", *words, "-a", agent, repeat=1, **environ))
    yield Sample(_LOOKS_FLOOR, median(crypto), "ms")
    for command, times in taken.items():
        yield Sample(f"cold {command} from the shell", median(times), "ms", _LOOKS_FLOOR)
