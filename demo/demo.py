"""Two agents talk through a relay that can read nothing: a real relay, real commands, real files, all thrown away.

Run it with `./start.sh demo`. Every command line that it prints is what you could type yourself. It ends with exit
code 0 only if both messages arrived and neither text is anywhere on the relay's disk.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUESTION = "Hello worker-1: please count the cranes in harbour basin seven."
ANSWER = "Forty-two cranes, and one of them is a heron."
PATIENCE_SECONDS = 30
BIN = Path(sys.executable).parent


class DemoFailed(Exception):
    """Something did not go as the story says; the message is for the reader."""


def say(text: str = "") -> None:
    """Write one line to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def bold(text: str) -> str:
    """Return *text* in bold where a person looks."""
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def chapter(number: int, title: str) -> None:
    """Open the next part of the story."""
    say(f"\n{bold(f'{number}. {title}')}")


class Machine:
    """One agent's computer: a home directory of its own, and a shell to type in."""

    def __init__(self, owner: str, home: Path) -> None:
        self.owner = owner
        self._environment = environment() | {"AIMESSAGE_HOME": str(home)}

    def type(self, *words: str, shown: bool = True) -> str:
        """Run `aimessage *words*`, show it as it would look in a terminal, and return its stdout."""
        self._prompt(words)
        output = self.run(*words)
        self._show(output if shown else "(kept off this screen)")
        return output

    def run(self, *words: str) -> str:
        """Run `aimessage *words*` and return its stdout."""
        done = subprocess.run(  # noqa: S603  our own command, and words from this file
            [BIN / "aimessage", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise DemoFailed(f"aimessage {words[0]} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    @contextmanager
    def typing(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run `aimessage *words*` beside what follows."""
        self._prompt((*words, "&"))
        process = subprocess.Popen(  # noqa: S603  our own command, and words from this file
            [BIN / "aimessage", *words],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            end(process)

    def hear(self, process: subprocess.Popen[str]) -> str:
        """Wait for what `typing` started, show and return its stdout."""
        heard, complaint = process.communicate(timeout=PATIENCE_SECONDS)
        if process.returncode != 0:
            raise DemoFailed(f"{self.owner} heard nothing: {complaint.strip()}")
        say(f"   and on {self.owner}'s screen:")
        self._show(heard)
        return heard

    def _prompt(self, words: tuple[str, ...]) -> None:
        line = " ".join(word if word == "&" else shlex.quote(word) for word in words)
        say(f"   {self.owner}$ {bold('aimessage ' + line)}")

    def _show(self, output: str) -> None:
        for line in output.splitlines():
            say(f"      {line}")


def environment() -> dict[str, str]:
    """Return our environment without what would steer the commands elsewhere."""
    ours = ("AIMESSAGE_", "RATE_LIMIT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    for name in ("PORT", "DB_PATH", "LOG_FORMAT"):
        kept.pop(name, None)
    return kept | {"NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1"}


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[str]) -> None:
    """Stop *process* kindly, then not kindly."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def health(port: int) -> str:
    """Return what `/health` says, or nothing while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@contextmanager
def relay(port: int, disk: Path, log: Path) -> Iterator[None]:
    """Run a relay on loopback until the story is told."""
    words = ["aimessage-server", "--port", str(port), "--db-path", str(disk)]
    say(f"   relay$ {bold(shlex.join(words))} &")
    with log.open("w") as sink:
        process = subprocess.Popen(  # noqa: S603  our own command, and words from this file
            [BIN / words[0], *words[1:]], env=environment(), stdout=sink, stderr=sink, text=True
        )
        try:
            wait_for_health(process, port, log)
            yield
        finally:
            end(process)


def wait_for_health(process: subprocess.Popen[str], port: int, log: Path) -> None:
    """Return when the relay answers, and show what it says."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := health(port)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoFailed(f"the relay did not start: {log.read_text().strip()}")
        time.sleep(0.05)
    say(f"   {bold(f'curl http://localhost:{port}/health')}")
    say(f"      {answer.strip()}")


def require(heard: str, text: str, who: str) -> None:
    """Raise DemoFailed unless *text* is in what was heard."""
    if text not in heard:
        raise DemoFailed(f"{who} should have read: {text}")


def wait_until_online(machine: Machine, name: str) -> None:
    """Return when `users` lists *name*, and show that answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while name not in machine.run("users"):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{name} never came online")
        time.sleep(0.3)
    machine.type("users")


def search(folder: Path, secrets: dict[str, bytes], known: dict[str, bytes]) -> None:
    """Read every byte under *folder*; raise DemoFailed if a secret is there, or if something known is not.

    What the relay does know serves as the check that the search can find anything at all.
    """
    octets = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    say(f"   {len(octets)} files, {sum(map(len, octets.values())):,} bytes, searched from end to end:")
    for what, needle in (known | secrets).items():
        places = [path.name for path, content in octets.items() if needle in content]
        say(f"      {what:<42} {'found in ' + ', '.join(places) if places else 'not there'}")
        if bool(places) != (what in known):
            raise DemoFailed(f"{what}: this should have been the other way round")


def tell(folder: Path, port: int) -> None:
    """Play the whole story in *folder*."""
    server = f"ws://localhost:{port}"
    disk = folder / "relay"
    alice, worker = Machine("alice", folder / "alice"), Machine("worker", folder / "worker")
    chapter(1, "A relay comes up, on this machine only")
    with relay(port, disk, folder / "relay.log"):
        chapter(2, "Two agents register; each makes its keys on its own machine")
        alice.type("register", "--username", "alice-agent", "--server", server)
        worker.type("register", "--username", "worker-1", "--server", server)

        chapter(3, "The worker listens, and alice sends: keys are agreed, text is sealed, the relay carries it")
        with worker.typing("listen", "--count", "1", "--timeout", f"{PATIENCE_SECONDS}s") as ear:
            wait_until_online(alice, "worker-1")
            alice.type("send", "--to", "worker-1", "--message", QUESTION)
            require(worker.hear(ear), QUESTION, "worker-1")

        chapter(4, "The worker answers while alice is away: the relay keeps what it cannot read")
        worker.type("send", "--to", "alice-agent", "--message", ANSWER)

        chapter(5, "Now the answer lies on the relay's disk, waiting. Can it be read there?")
        secrets = {"alice's question": QUESTION.encode(), "the worker's answer": ANSWER.encode()}
        for machine in (alice, worker):
            token = machine.type("token", "show", shown=False).strip()
            secrets[f"{machine.owner}'s secret token"] = token.encode()
        known = {"the name alice-agent (a relay knows names)": b"alice-agent"}
        search(disk, secrets, known)

        chapter(6, "Alice comes back and reads her mail")
        heard = alice.type("listen", "--count", "1", "--timeout", f"{PATIENCE_SECONDS}s")
        require(heard, ANSWER, "alice-agent")
    chapter(7, "The relay is down; one last look at all that it wrote")
    search(disk, secrets, known)
    log = (folder / "relay.log").read_bytes()
    if any(needle in log for needle in secrets.values()):
        raise DemoFailed("the relay's log holds a secret")
    say("   its log holds none of it either")


def main() -> int:
    """Tell the story; return the exit code."""
    say(bold("AI Message: two agents, one relay, and nothing for the relay to read"))
    with tempfile.TemporaryDirectory(prefix="aimessage-demo-") as folder:
        try:
            tell(Path(folder), free_port())
        except KeyboardInterrupt:
            return 130
        except (DemoFailed, subprocess.TimeoutExpired) as error:
            sys.stderr.write(f"\nthe demo failed: {error}\n")
            return 1
    say(f"\n{bold('Both messages arrived, the relay could read neither, and everything made here is gone again.')}")
    say("Next: read README.md, then start a relay of your own with ./start.sh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
