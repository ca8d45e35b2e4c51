"""A TCP proxy that keeps every byte of both directions, and reads WebSocket frames as the relay would."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

__all__ = ["Wiretap", "payloads", "tapped"]


@dataclass
class Wiretap:
    """What passed; one bytearray for each direction of each connection."""

    port: int = 0
    streams: list[bytearray] = field(default_factory=list)

    def everything(self) -> bytes:
        """Return all raw bytes and, behind them, the payloads with the client's masks taken off."""
        return b"".join(bytes(stream) + b"\n" + payloads(bytes(stream)) for stream in self.streams)


def payloads(stream: bytes) -> bytes:
    """Return the payload of every WebSocket frame behind the HTTP head of *stream*, unmasked."""
    at = stream.find(b"\r\n\r\n") + 4
    found = []
    while at >= 4 and at + 2 <= len(stream):
        length, masked = stream[at + 1] & 0x7F, stream[at + 1] & 0x80
        at += 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length = int.from_bytes(stream[at : at + width], "big")
            at += width
        mask = stream[at : at + 4] if masked else b"\0\0\0\0"
        at += 4 if masked else 0
        found.append(_unmasked(stream[at : at + length], mask))
        at += length
    return b"".join(found)


@asynccontextmanager
async def tapped(target_port: int) -> AsyncIterator[Wiretap]:
    """Listen on a free port of this machine and pass everything on to *target_port*."""
    tap = Wiretap()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", target_port)
        up, down = bytearray(), bytearray()
        tap.streams += [up, down]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, back, up))
                group.create_task(_pump(there, writer, down))
        except* ConnectionError:
            pass
        finally:
            back.close()
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    tap.port = server.sockets[0].getsockname()[1]
    try:
        yield tap
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
    while chunk := await reader.read(65536):
        record += chunk
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    if not payload:
        return b""
    (key,) = struct.unpack(">I", mask)
    repeated = (key.to_bytes(4, "big") * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
