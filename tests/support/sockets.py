"""Sockets that are no agents: raw bytes from any loopback address."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.relay import HOST, get

__all__ = ["OTHER", "UPGRADE", "dialled", "over", "status_of", "until_status"]

OTHER = "127.0.0.2"
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@asynccontextmanager
async def dialled(
    url: str, source: str = HOST, request: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, int(url.rsplit(":", 1)[1]), local_addr=(source, 0))
    try:
        writer.write(request)
        yield reader, writer
    finally:
        writer.transport.abort()


async def status_of(url: str, source: str = HOST, request: bytes = b"") -> int:
    async with dialled(url, source, request or get("/nothing")) as (reader, _), asyncio.timeout(60):
        return int((await reader.readline()).split(b" ")[1])


async def until_status(url: str, wanted: int, request: bytes = b"") -> None:
    async with asyncio.timeout(60):
        while await status_of(url, request=request) != wanted:  # noqa: ASYNC110  # the condition is the relay's
            await asyncio.sleep(0.02)


async def over(reader: asyncio.StreamReader) -> None:
    """Wait until the relay has ended the connection."""
    try:
        async with asyncio.timeout(60):
            while await reader.read(1 << 16):
                pass
    except ConnectionError:
        pass
