"""Peers that mean harm: each attack dials a relay on loopback, does its worst, and counts how it ended.

Every connection comes from 127.0.0.2, so that a limit on addresses hits nobody else. An attack's *size* is its number
of connections; what is counted are the ends: a status of HTTP, a close code, or how else the connection was over.
"""

import asyncio
import os
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import uvloop

from aimessage.wire.frames import Done, FetchState, Proved, StoreState
from support.relay import HOST, Peer, get

__all__ = ["ATTACKS", "Ends", "attack"]

_CLOSE: Final = 0x88
_SOURCE: Final = "127.0.0.2"
_AT_ONCE: Final = 50
_PATIENCE_SECONDS: Final = 60.0
_UPGRADE: Final = get(
    "/",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

Ends = Counter[str]
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def _dialled(port: int, first: bytes = b"") -> AsyncIterator[_Streams]:
    reader, writer = await asyncio.open_connection(HOST, port, local_addr=(_SOURCE, 0))
    try:
        writer.write(first)
        yield reader, writer
    finally:
        writer.transport.abort()


async def _end(reader: asyncio.StreamReader) -> str:
    """Read to the end and name it: the status of an answer, the code of a close frame, or "cut" without either."""
    status = ""
    try:
        first = await reader.readline()
        status = first[9:12].decode()
        while first not in (b"\r\n", b""):
            first = await reader.readline()
        while status == "101":
            opcode, size = await reader.readexactly(2)
            if size >= 126:
                size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
            payload = await reader.readexactly(size)
            if opcode == _CLOSE:
                return f"close {int.from_bytes(payload[:2], 'big')}"
    except (ConnectionError, asyncio.IncompleteReadError):
        status = ""
    return f"HTTP {status}" if status else "cut"


async def _each(size: int, work: Callable[[Random], Awaitable[str]], at_once: int = _AT_ONCE) -> Ends:
    ends: Ends = Counter()
    numbers = iter(range(size))

    async def some() -> None:
        for number in numbers:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                ends[await work(Random(number))] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(some())
    return ends


def _masked(first: int, payload: bytes, size: int | None = None, mask: int = 0x80) -> bytes:
    length = len(payload) if size is None else size
    if length < 126:
        return bytes([first, mask | length]) + bytes(4) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", first, mask | 126, length) + bytes(4) + payload
    return struct.pack("!BBQ", first, mask | 127, length) + bytes(4) + payload


def _malformed(random: Random) -> bytes:
    octets = random.randbytes(random.randrange(1, 100))
    opcode = random.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
    return random.choice(
        [
            octets + bytes(64),
            _masked(0x80 | opcode, octets),
            _masked(0x82 | random.randrange(1, 8) << 4, octets),
            _masked(0x80, octets),  # a continuation of nothing
            _masked(0x02, octets) + _masked(0x82, octets),
            _masked(0x82, octets, mask=0),
            _masked(0x89, octets, size=65_536),
            _masked(0x08, b"\x03\xe8"),
            _masked(0x88, b"\x03"),
            _masked(0x88, struct.pack("!H", random.randrange(0, 1_000))),
            _masked(0x88, b"\x03\xe8\xff\xfe"),
            _masked(0x81, octets),
            _masked(0x82, octets),  # a good frame of WebSocket, and none of ours
        ]
    )


async def malformed_frames(port: int, size: int) -> Ends:
    """One broken frame, or one that means nothing, on each of *size* upgraded connections."""

    async def one(random: Random) -> str:
        async with _dialled(port, _UPGRADE) as (reader, writer):
            writer.write(_malformed(random))
            writer.write_eof()
            return await _end(reader)

    return await _each(size, one)


def _handshake(random: Random) -> bytes:
    head = bytearray(_UPGRADE)
    match random.randrange(4):
        case 0:
            return random.randbytes(random.randrange(1, 2_000)) + b"\r\n\r\n"
        case 1:  # some octets are others
            for _ in range(random.randrange(1, 12)):
                head[random.randrange(len(head) - 4)] = random.randrange(256)
        case 2:  # a line is there twice, or not at all
            lines = bytes(head).split(b"\r\n")[:-2]
            lines[random.randrange(len(lines))] = random.choice(lines)
            return b"\r\n".join([*lines, b"", b""])
        case _:
            del head[random.randrange(len(head)) :]
    return bytes(head)


async def random_handshakes(port: int, size: int) -> Ends:
    """Random bytes, and handshakes that are spoilt a little, on *size* connections."""

    async def one(random: Random) -> str:
        async with _dialled(port, _handshake(random)) as (reader, writer):
            writer.write_eof()
            return await _end(reader)

    return await _each(size, one)


async def slow_handshakes(port: int, size: int) -> Ends:
    """*size* connections at once, each of which sends its handshake an octet a second."""

    async def one(_random: Random) -> str:
        began = time.monotonic()
        async with _dialled(port) as (reader, writer), asyncio.TaskGroup() as tasks:

            async def trickle() -> None:
                for octet in _UPGRADE:
                    writer.write(bytes([octet]))
                    await asyncio.sleep(1.0)

            trickling = tasks.create_task(trickle())
            end = await _end(reader)
            trickling.cancel()
        return end if end != "cut" else f"cut after {time.monotonic() - began:.0f} s"

    return await _each(size, one, at_once=size)


async def header_floods(port: int, size: int) -> Ends:
    """Headers without an end."""

    async def one(random: Random) -> str:
        async with _dialled(port, b"GET / HTTP/1.1\r\n") as (reader, writer):
            try:
                for number in range(10_000):
                    writer.write(f"X-{number}: {'a' * random.randrange(1, 200)}\r\n".encode())
                    await writer.drain()
            except ConnectionError:
                return "reset"
            return await _end(reader)

    return await _each(size, one)


async def endless_fragments(port: int, size: int) -> Ends:
    """Fragments of one message that never ends."""

    async def one(_random: Random) -> str:
        async with _dialled(port, _UPGRADE) as (reader, writer):
            fragment = _masked(0x00, bytes(60_000))
            writer.write(_masked(0x02, bytes(60_000)))
            ending = asyncio.ensure_future(_end(reader))
            try:
                for _ in range(1_000):
                    if ending.done():
                        break
                    writer.write(fragment)
                    await writer.drain()
            except ConnectionError:
                pass
            return await ending

    return await _each(size, one, at_once=20)


async def huge_lengths(port: int, size: int) -> Ends:
    """Frames that announce 2^62 bytes, and some of those bytes."""

    async def one(_random: Random) -> str:
        async with _dialled(port, _UPGRADE + _masked(0x82, bytes(4_096), size=1 << 62)) as (reader, _):
            return await _end(reader)

    return await _each(size, one)


async def stalled_readers(port: int, size: int) -> Ends:
    """Logged-in peers that ask for 18 MB each and read nothing."""

    async def one(_random: Random) -> str:
        name = f"staller-{os.urandom(5).hex()}"
        async with Peer(f"ws://{HOST}:{port}", name) as peer:
            assert isinstance(await peer.register(), Proved)
            peer.send(StoreState(peer.next_id(), 1, bytes(60_000)))
            await peer.expect(Done)
            peer.transport.underlying_transport.pause_reading()
            for _ in range(5):
                peer.send(*(FetchState(peer.next_id()) for _ in range(60)))
            while not peer.transport.is_disconnected:
                await asyncio.sleep(0.2)
                peer.transport.send_ping(b"")  # a write is how one who reads nothing hears of the end
            return "cut"

    return await _each(size, one, at_once=size)


async def half_open(port: int, size: int) -> Ends:
    """Peers that upgrade, and are never heard of again; they do not even answer a ping."""

    async def one(_random: Random) -> str:
        async with _dialled(port, _UPGRADE) as (reader, _):
            return await _end(reader)

    return await _each(size, one, at_once=size)


ATTACKS: Final[dict[str, Callable[[int, int], Awaitable[Ends]]]] = {
    attack.__name__: attack
    for attack in (
        malformed_frames, random_handshakes, slow_handshakes, header_floods, endless_fragments, huge_lengths,
        stalled_readers, half_open,
    )
}  # fmt: skip


def attack(name: str, port: int, size: int) -> Ends:
    """Run one attack in a loop of its own, and return its ends."""

    async def run() -> Ends:
        return await ATTACKS[name](port, size)

    return uvloop.run(run())
