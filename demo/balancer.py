"""A small load balancer for trials: HTTP and WebSocket to whichever relay is ready, in turn.

It reads the head of each connection's first request, adds who asks (`X-Forwarded-For`), and copies from then on. A
relay is asked for /ready twice a second. For real use take HAProxy or nginx, which also speak TLS.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

HEAD_BYTES = 16 << 10
HEAD_SECONDS = 10.0
PROBE_SECONDS = 0.5
PIECE_BYTES = 64 << 10


@dataclass
class Backend:
    """One relay on loopback; *ready* is what it last said of itself."""

    name: str
    port: int
    ready: bool = False

    async def ask(self) -> bool:
        """Return whether the relay takes new work."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    answer = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
        return b" 200 " in answer


class Balancer:
    """Shares connections among *backends*; *tell* hears each change in one sentence."""

    def __init__(self, backends: Sequence[Backend], tell: Callable[[str], None]) -> None:
        self.backends = backends
        self._tell = tell
        self._turn = 0

    async def probe(self) -> None:
        """Ask every relay how it is, again and again."""
        while True:
            for backend in self.backends:
                was, backend.ready = backend.ready, await backend.ask()
                if was != backend.ready:
                    self._tell(
                        f"{backend.name} is {'ready' if backend.ready else 'not ready: nobody new is sent there'}"
                    )
            await asyncio.sleep(PROBE_SECONDS)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            far = await self._dial()
            if far is None:
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
            else:
                far[1].write(_introduced(head, writer))
                await _both_ways((reader, writer), far)
        writer.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Return a connection to the next relay that is ready, None if there is none."""
        for _ in self.backends:
            self._turn = (self._turn + 1) % len(self.backends)
            backend = self.backends[self._turn]
            if backend.ready:
                with suppress(OSError):
                    return await asyncio.open_connection("127.0.0.1", backend.port)
        return None


def _introduced(head: bytes, writer: asyncio.StreamWriter) -> bytes:
    """Return *head* with the address of who asks as the last header, where a relay looks for it."""
    host = str(writer.get_extra_info("peername")[0])
    return head[:-2] + b"X-Forwarded-For: " + host.encode() + b"\r\n\r\n"


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _both_ways(near: _Ends, far: _Ends) -> None:
    """Copy until either end is over, then close both: a link has no use for half of itself."""
    ways = [asyncio.create_task(_copy(near[0], far[1])), asyncio.create_task(_copy(far[0], near[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        far[1].close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
