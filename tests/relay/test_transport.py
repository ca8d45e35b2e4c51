"""The guards that picows leaves to us, against raw frames."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from aimessage.wire.frames import Accepted, Post, Subscribe, Subscribed
from support.relay import HOST, Peer, get, running_relay

UPGRADE = (
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, length: int | None = None) -> bytes:
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    size = len(payload) if length is None else length
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload  # a mask of zeros is a mask


class Raw:
    """One upgraded connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def next(self) -> tuple[int, bytes]:
        """Return the opcode and payload of the next frame."""
        async with asyncio.timeout(60):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return first & 0x0F, await self.reader.readexactly(size)

    async def close_code(self) -> int:
        """Return the code of the close frame that comes, whatever comes before it."""
        while True:
            opcode, payload = await self.next()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big")


@asynccontextmanager
async def upgraded(tmp_path: Path) -> AsyncIterator[Raw]:
    async with running_relay(tmp_path) as url:
        reader, writer = await asyncio.open_connection(HOST, int(url.rsplit(":", 1)[1]))
        writer.write(get("/", *UPGRADE, "Sec-WebSocket-Protocol: aimessage.v1"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head
        assert b"Sec-WebSocket-Protocol: aimessage.v1" in head
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        try:
            yield Raw(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):  # the relay was first
                await writer.wait_closed()


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (frame(BINARY, length=2 << 20), 1009),
        (frame(BINARY, length=1 << 62), 1009),
        (frame(BINARY, bytes(700_000), fin=False) + frame(CONTINUATION, bytes(700_000)), 1009),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"), 1002),
        (frame(BINARY, b"x", rsv=4), 1002),
        (frame(PING, b"x", rsv=1), 1002),
        (frame(TEXT, b"hello"), 1003),
        (frame(3, b"x"), 1002),
        (frame(PING, bytes(126)), 1002),
        (frame(CLOSE, b"\x03\xe8"), 1000),
        (frame(CLOSE), 1000),
        (frame(CLOSE, b"\x0f\xa0"), 4000),
        (frame(CLOSE, b"\x03\xed"), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (frame(CLOSE, b"\x03\xe8", rsv=7), 1002),
        (frame(CLOSE, b"\x00\x00"), 1002),
        (frame(CLOSE, b"\x03\xee"), 1002),
        (frame(CLOSE, b"\x13\x88"), 1002),
        (frame(CLOSE, b"\x13\x87"), 4999),
    ],
)
async def test_each_breach_gets_its_close_code(tmp_path: Path, octets: bytes, code: int) -> None:
    async with upgraded(tmp_path) as raw:
        raw.writer.write(octets)

        assert await raw.close_code() == code


async def test_pings_are_answered_between_fragments_and_fragments_make_one_message(tmp_path: Path) -> None:
    async with upgraded(tmp_path) as raw:
        assert (await raw.next())[0] == BINARY  # Welcome
        garbage = os.urandom(64)
        raw.writer.write(frame(BINARY, b"\xc1" + garbage, fin=False) + frame(PING, b"still there?"))
        assert await raw.next() == (PONG, b"still there?")
        raw.writer.write(frame(CONTINUATION, garbage))

        assert await raw.close_code() == 1008  # judged as one message, and as no frame


async def test_endless_pings_are_answered_only_within_a_rate(tmp_path: Path) -> None:
    async with upgraded(tmp_path) as raw:
        await raw.next()
        raw.writer.write(frame(PING) * 500 + frame(CLOSE))
        pongs = 0
        while (await raw.next())[0] == PONG:
            pongs += 1

    assert 0 < pongs < 50


async def test_a_reader_that_stalls_loses_nothing(tmp_path: Path) -> None:
    async with running_relay(tmp_path, mailbox_sender_share="0") as url, Peer(url, "alice") as alice:
        await alice.register()
        for _ in range(8):
            alice.send(*(Post(alice.next_id(), "alice", os.urandom(16), 0, 0, 0, bytes(60_000)) for _ in range(10)))
        for _ in range(80):
            await alice.expect(Accepted)
        async with Peer(url, "alice", alice.secret) as stalled:
            await stalled.login()
            stalled.transport.underlying_transport.pause_reading()
            stalled.send(Subscribe(1, stalled.vault_id, 1))
            await asyncio.sleep(0.2)
        async with Peer(url, "alice", alice.secret) as later:
            await later.login()
            answer = await later.subscribe()

    assert isinstance(answer, Subscribed)
    assert answer.waiting == 80
