"""What the machine costs by itself: the floors that every other figure is a multiple of."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.figures import Sample

__all__ = [
    "BARE_PYTHON",
    "COMMIT",
    "CONVERSATION",
    "CONVERSATION_MOST",
    "ECHO",
    "PYTHON_WITH_CRYPTO",
    "USER_BIN",
    "bare_ms",
    "floors",
    "run_ms",
    "with_crypto_ms",
]

BARE_PYTHON = "python -c pass"
PYTHON_WITH_CRYPTO = "python importing socket, AES-GCM, sqlite3"
CONVERSATION = "six syncs and four hops between three processes, p50"
CONVERSATION_MOST = "six syncs and four hops between three processes, p99"
COMMIT = "SQLite commit, WAL, synchronous=FULL"
ECHO = "picows echo, 50 busy links"
USER_BIN = Path(os.environ.get("AIMESSAGE_USER_BIN", Path(sys.executable).parent))
"""Where a user's commands are: an environment without a developer's packages, which `./bench.sh` makes."""
_IMPORTS = "import socket, sqlite3; from cryptography.hazmat.primitives.ciphers.aead import AESGCM"


def run_ms(*command: str | Path, repeat: int = 9, **environ: str) -> float:
    """Return the median wall-clock milliseconds of a command that succeeds."""
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, env=os.environ | environ)  # fmt: skip
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)[repeat // 2]


def bare_ms(repeat: int = 9) -> float:
    """Return what the start of an interpreter takes that does nothing."""
    return run_ms(USER_BIN / "python", "-c", "pass", repeat=repeat)


def with_crypto_ms(repeat: int = 9) -> float:
    """Return what the start of an interpreter takes that imports what no command of ours can do without."""
    return run_ms(USER_BIN / "python", "-c", _IMPORTS, repeat=repeat)


def floors() -> Iterator[Sample]:
    """Yield one sample of each floor."""
    yield Sample(BARE_PYTHON, bare_ms(), "ms")
    yield Sample(PYTHON_WITH_CRYPTO, with_crypto_ms(), "ms")
    [there_and_back] = _way_alone("tcp")
    yield Sample("TCP ping-pong", there_and_back, "ms")
    median, most = _way_alone("conversation")
    yield Sample(CONVERSATION, median, "ms")
    yield Sample(CONVERSATION_MOST, most, "ms")
    alone, busy = _way_alone("picows")
    yield Sample("picows echo, ping-pong", alone, "ms")
    yield Sample(ECHO, busy, "msg/s")
    yield Sample("fsync of 4 KiB", _fsync_ms(), "ms")
    yield Sample(COMMIT, _sqlite_ms(), "ms")
    yield Sample("AES-256-GCM of 256 B", _aes_us(), "µs")


def _way_alone(what: str) -> list[float]:
    """Return the figures of one way that `benchmarks.hops` measures."""
    command = [sys.executable, "-m", "benchmarks.hops", what]
    told = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    return [float(line) for line in told.stdout.splitlines()]


def _fsync_ms() -> float:
    with tempfile.NamedTemporaryFile() as file:
        taken = []
        for _ in range(200):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return sorted(taken)[100] * 1000


def _sqlite_ms() -> float:
    with tempfile.TemporaryDirectory() as directory:
        database = sqlite3.connect(Path(directory) / "floor.db", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE t (x BLOB)")
        taken = []
        for _ in range(200):
            began = time.perf_counter()
            database.execute("INSERT INTO t VALUES (?)", (bytes(400),))
            taken.append(time.perf_counter() - began)
        database.close()
    return sorted(taken)[100] * 1000


def _aes_us() -> float:
    cipher, nonce, body = AESGCM(bytes(32)), bytes(12), bytes(256)
    began = time.perf_counter()
    for _ in range(20_000):
        cipher.encrypt(nonce, body, None)
    return (time.perf_counter() - began) / 20_000 * 1e6
