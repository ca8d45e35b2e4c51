"""What a plain `send` loads, and that the short way says and does what the long one does."""

import os
import subprocess
import sys
from pathlib import Path

from support.commands import BIN, Home, running_relay

# Not named: inspect (msgspec loads it where typing_extensions is installed) and random (cryptography does).
TOO_HEAVY = {
    "asyncio", "click", "copy", "dataclasses", "email", "h11", "hashlib", "hmac", "http", "json", "logging", "picows",
    "prometheus_client", "python_socks", "rocksdict", "ssl", "stringprep", "structlog", "traceback", "uvloop",
    "wsproto",
}  # fmt: skip


def loaded(home: Home, *arguments: str) -> set[str]:
    """The top-level modules that one command imports, by the interpreter's own word."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", BIN / "aimessage", *arguments],
        env=os.environ | {"AIMESSAGE_HOME": str(home.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert "Message sent to bobby (accepted)" in done.stdout
    return {name.split(".")[0] for name in names}


def test_a_plain_send_loads_no_event_loop_and_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_relay(tmp_path / "relay") as relay:
        for name in ("alice", "bobby"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        before = loaded_by_nothing()
        found = loaded(home, "send", "-a", "alice", "--to", "bobby", "-m", "hello") - before
        assert found & TOO_HEAVY == set()
        assert {"aimessage", "cryptography", "msgspec", "sqlite3", "socket"} <= found
        home.run("wait", "-a", "bobby", "--timeout", "10").ok()


def loaded_by_nothing() -> set[str]:
    """What the interpreter and this environment load before any command."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", "pass"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}


def test_the_short_way_fails_as_the_long_one(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_relay(tmp_path / "relay") as relay:
        home.run("register", "-a", "alice", "-u", "alice", "-s", relay.url).ok()
        for arguments in (
            ("--to", "nobody-here", "-m", "x"),
            ("--to", "alice", "-m", "x"),
            ("--to", "Not A Name", "-m", "x"),
            ("--to", "bobby", "-m", "wave \u00a9"),
            ("--to", "bobby", "-m", " "),
            ("--to", "bobby", "--file", str(tmp_path / "absent")),
            ("--to", "bobby", "-m", "x", "-s", "http://x"),
            ("--to", "bobby", "-m", "x", "-s", f"ws://localhost:{relay.port + 1}"),
            ("--to", "bobby", "-m", "x", "-a", "ghost"),
        ):
            for shape in ((), ("--json",)):
                # With --ttl the line is no plain one any more.
                timeout = ("--timeout", "1") if f":{relay.port + 1}" in arguments[-1] else ("--ttl", "7d")
                short = home.run("send", "-a", "alice", *arguments, *shape) if timeout[0] == "--ttl" else None
                long = home.run("send", "-a", "alice", *arguments, *timeout, *shape)
                assert long.code != 0
                if short is not None:
                    assert (short.code, short.out, short.err) == (long.code, long.out, long.err)
