"""The installed commands as a user has them: real processes, a real relay, a home of one's own."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Home", "Outcome", "Relay", "operator", "plainly", "running_relay"]

BIN: Final = Path(sys.executable).parent
_ADDRESS: Final = re.compile(r"(?:localhost|127\.0\.0\.1):([1-9][0-9]*)")
_SETTINGS: Final = (
    *("AIMESSAGE_", "RATE_LIMIT_", "MAILBOX_"),
    *("PORT", "DB_PATH", "LOG_FORMAT", "HOST_ADDRESS", "STORE", "PUBLIC_HOST", "REGISTRATION"),
)
_START_SECONDS: Final = 60.0
_COMMAND_SECONDS: Final = 90.0


def _environment(**extra: str) -> dict[str, str]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith(_SETTINGS)}
    return ours | extra


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished command left behind."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """stdout, which is UTF-8 always."""
        return self.out.decode()

    @property
    def talk(self) -> str:
        """stderr."""
        return self.err.decode()

    def objects(self) -> list[dict[str, object]]:
        """Return the JSON objects on stdout, one a line."""
        return [json.loads(line) for line in self.text.splitlines()]

    def failure(self) -> dict[str, object]:
        """Return the one JSON error on stderr."""
        lines = self.talk.splitlines()
        assert len(lines) == 1, self
        shape = json.loads(lines[0])
        assert isinstance(shape, dict)
        return shape

    def ok(self) -> "Outcome":
        """Return this outcome if the command succeeded; fail the test if not."""
        assert self.code == 0, self
        return self


@dataclass(frozen=True, slots=True)
class Home:
    """One machine's `~/.aimessage`, and the commands typed there."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str | bytes, **environ: str) -> "subprocess.Popen[bytes]":
        """Start `aimessage` with *arguments*, all three streams piped."""
        return subprocess.Popen(
            [BIN / "aimessage", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(AIMESSAGE_HOME=str(self.path)) | self.environ | environ,
        )

    def run(self, *arguments: str | bytes, stdin: bytes = b"", **environ: str) -> Outcome:
        """Run `aimessage` with *arguments* to its end."""
        with self.start(*arguments, **environ) as process:
            try:
                out, err = process.communicate(stdin, timeout=_COMMAND_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Outcome(process.returncode, out, err)


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that runs."""

    port: int
    db_path: Path
    log_path: Path
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        """The address as the requirement writes it."""
        return f"ws://localhost:{self.port}"

    def health(self) -> bytes:
        """Return what `curl /health` prints."""
        with urllib.request.urlopen(f"http://localhost:{self.port}/health", timeout=10) as answer:
            return bytes(answer.read())

    def ready(self) -> tuple[int, str]:
        """Return what `/ready` says: its status and why."""
        try:
            with urllib.request.urlopen(f"http://localhost:{self.port}/ready", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    def stop(self) -> int:
        """Stop the relay in order and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@contextmanager
def running_relay(directory: Path, *flags: str) -> Iterator[Relay]:
    """Run `aimessage-server` on a free port under *directory*, without rate limits unless *flags* say otherwise."""
    directory.mkdir(parents=True, exist_ok=True)
    log_path, db_path = directory / "relay.log", directory / "data"
    arguments = [
        "--port",
        "0",
        "--db-path",
        str(db_path),
        "--rate-global",
        "0",
        "--rate-connection",
        "0",
        "--registrations",
        "0",
        *flags,
    ]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [BIN / "aimessage-server", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(PYTHONUNBUFFERED="1"),
        )
    try:
        yield Relay(_announced_port(process, log_path), db_path, log_path, process)
    finally:
        _end(process)


def _announced_port(process: "subprocess.Popen[bytes]", log_path: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        text = log_path.read_text()
        if found := _ADDRESS.search(text):
            return int(found[1])
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"the relay did not start: {_text(log_path)}")


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def plainly(*words: str) -> Outcome:
    """Run `aimessage-server` with *words* to its end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(BIN / "aimessage-server", *words, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Outcome(process.returncode, out, err)


async def operator(relay: Relay, *words: str) -> Outcome:
    """Run a command beside *relay*, with JSON lines."""
    return await plainly("--log-format", "json", "--db-path", str(relay.db_path), *words)
