"""A real HTTP proxy on loopback: it connects every name to one port, and remembers what it was asked."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from support.pipes import accepting, join

__all__ = ["ConnectProxy", "proxy_to"]


@dataclass
class ConnectProxy:
    """What a test tells the proxy, and what it has seen. *account* is `user:password`; *status* refuses everybody."""

    target: int
    account: str | None = None
    status: int | None = None
    port: int = 0
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The proxy's address, without an account."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, authority, _ = head[0].split(" ")
        self.asked.append(authority)
        refusal = 405 if method != "CONNECT" else self.status or self._missing_account(head)
        if refusal is not None:
            writer.write(f"HTTP/1.1 {refusal} No\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            await reader.read()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await join(reader, writer, self.target)

    def _missing_account(self, head: list[str]) -> int | None:
        if self.account is None:
            return None
        wanted = f"Proxy-Authorization: Basic {base64.b64encode(self.account.encode()).decode()}"
        return None if wanted in head else 407


@asynccontextmanager
async def proxy_to(relay: str, *, account: str | None = None, status: int | None = None) -> AsyncIterator[ConnectProxy]:
    """Run a proxy whose every connection ends at *relay*, an address with a port on loopback."""
    proxy = ConnectProxy(int(relay.rsplit(":", 1)[1]), account, status)
    async with accepting(proxy.serve) as proxy.port:
        yield proxy
