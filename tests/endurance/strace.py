"""What strace saw of a relay, and whether each Accepted left behind the sync of its own entry.

A trace's lines are in the order in which strace let the calls go on: an exit that stands before an entry was over,
in the kernel, before that entry's call began. So order in the file is order in time, across threads.
"""

import re
import signal
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from endurance.wal import records

__all__ = ["Syncs", "delaying_syncs", "judge", "tracing", "why_not_traceable"]

_SYNCS: Final = "fdatasync,fsync"
_CALLS: Final = f"write,pwrite64,writev,pwritev,{_SYNCS},sendto,sendmsg"
_LINE: Final = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_FD: Final = re.compile(r"^\d+<([^>]*)>")
_RESULT: Final = re.compile(r"= (-?\d+)(?: .*)?$")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_ACCEPTED: Final = re.compile(rb"[\x94\x95]\x45\xcf(\x5e\xed.{6})", re.DOTALL)
_MESSAGE_ID: Final = re.compile(rb"\xa5mk\x5a.{12}", re.DOTALL)


def why_not_traceable() -> str:
    """Return why nothing can be traced here; empty if it can."""
    try:
        attempt = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return "strace is not installed"
    return "" if attempt.returncode == 0 else "this machine does not let us trace"


@contextmanager
def tracing(pid: int, trace: Path) -> Iterator[None]:
    """Write every write, sync and send of all threads of *pid* to *trace*, whole and in hexadecimal."""
    with _attached(pid, "-y", "-xx", "-s", str(4 << 20), "-e", f"trace={_CALLS}", "-o", str(trace)):
        yield


@contextmanager
def delaying_syncs(pid: int, seconds: float) -> Iterator[None]:
    """Let each sync of any thread of *pid* begin *seconds* late; one that waits then waits to its end."""
    delay = f"inject={_SYNCS}:delay_enter={round(seconds * 1e6)}"
    with _attached(pid, "-e", f"trace={_SYNCS}", "-e", delay, "-o", "/dev/null"):
        yield


@contextmanager
def _attached(pid: int, *flags: str) -> Iterator[None]:
    tracer = subprocess.Popen(["strace", "-f", *flags, "-p", str(pid)], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    try:
        greeting = tracer.stderr.readline()
        assert b"attached" in greeting, greeting
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=60)


@dataclass(frozen=True, slots=True)
class _Event:
    """The entry of a call, or its exit with its *result*."""

    call: str
    target: str
    octets: bytes
    result: int | None = None


def _octets(quoted: str) -> bytes:
    return bytes.fromhex(quoted.replace("\\x", ""))


def _events(lines: Iterable[str]) -> Iterator[_Event]:
    open_calls: dict[str, _Event] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        thread, resumed, begun, rest = found.groups()
        if begun:
            fd = _FD.match(rest)
            octets = b"".join(map(_octets, _TEXT.findall(rest)))
            target = _octets(fd[1]).decode(errors="replace") if fd else ""
            open_calls[thread] = _Event(begun, target, octets)
            yield open_calls[thread]
        result = _RESULT.search(rest) if resumed or "<unfinished" not in rest else None
        if result is not None and thread in open_calls:
            entry = open_calls.pop(thread)
            yield _Event(entry.call, entry.target, entry.octets, int(result[1]))


@dataclass
class Syncs:
    """What a trace proves."""

    accepted: int = 0
    behind_their_sync: int = 0
    syncs: int = 0
    offenders: list[int] = field(default_factory=list)


def _where_entries_end(events: Iterable[_Event], before: dict[str, bytes]) -> dict[bytes, tuple[str, int]]:
    """Return, for each message id, the log that holds it and the offset behind its record."""
    logs: dict[str, bytearray] = defaultdict(bytearray, {path: bytearray(old) for path, old in before.items()})
    for event in events:
        if event.result is not None and event.result > 0 and _writes_log(event):
            logs[event.target] += event.octets[: event.result]
    places: dict[bytes, tuple[str, int]] = {}
    for path, log in logs.items():
        for record in records(bytes(log)):
            for message_id in _MESSAGE_ID.findall(record.payload):
                places.setdefault(message_id, (path, record.end))
    return places


def _writes_log(event: _Event) -> bool:
    return event.target.endswith(".log") and "write" in event.call


def _message_id(request_id: bytes) -> bytes:
    """Return the id of the message that went out under *request_id*; see `load.Letter`."""
    value = int.from_bytes(request_id, "big") & ((1 << 48) - 1)
    return struct.pack(">4sIQ", b"\xa5mk\x5a", value >> 36, value & ((1 << 36) - 1))


def judge(trace: Path, before: dict[str, bytes], *, without: str = "") -> Syncs:
    """Judge a trace; *before* is what the logs held when it began, *without* a call to look away from.

    An ack counts as proven if a sync of its log returned before the ack's send began, and that sync began when the
    record's last byte had been written.
    """

    def events() -> Iterator[_Event]:
        with trace.open() as lines:
            yield from (event for event in _events(lines) if event.call != without)

    places, found = _where_entries_end(events(), before), Syncs()
    written = defaultdict(int, {path: len(old) for path, old in before.items()})
    begun, synced = dict[str, int](), defaultdict[str, int](int)
    for event in events():
        if _writes_log(event):
            written[event.target] += max(event.result or 0, 0)
        elif event.call in ("fdatasync", "fsync"):
            if event.result is None:
                begun[event.target] = written[event.target]
            elif event.result == 0:
                synced[event.target] = max(synced[event.target], begun[event.target])
                found.syncs += event.target.endswith(".log")
        elif event.result is None:
            _count(event.octets, places, synced, found)
    return found


def _count(sent: bytes, places: dict[bytes, tuple[str, int]], synced: dict[str, int], found: Syncs) -> None:
    for request_id in _ACCEPTED.findall(sent):
        path, end = places.get(_message_id(request_id), ("", 1))
        found.accepted += 1
        if synced.get(path, 0) >= end:
            found.behind_their_sync += 1
        else:
            found.offenders.append(int.from_bytes(request_id, "big"))
