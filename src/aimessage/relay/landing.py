"""Where connections come in. With TLS they are accepted here, so that a handshake counts from its start."""

import asyncio
import socket as sockets
import ssl
from contextlib import suppress
from typing import Protocol

from aimessage.relay.http import Response
from aimessage.relay.lobby import Guest
from aimessage.relay.transport import Door, Judge

__all__ = ["Landing", "listen"]

_BACKLOG = 1024
_ACCEPTS_A_TURN = 64  # then whoever is connected already has its turn
_OUT_OF_DESCRIPTORS_SECONDS = 0.2


class Landing(Protocol):
    """What listens."""

    def close(self) -> None:
        """Accept nothing more."""
        ...


async def listen(judge: Judge, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[Landing, int]:
    """Return what listens now, and its real port. Raises OSError: the address cannot be had."""
    loop = asyncio.get_running_loop()
    plain = tls is None
    server = await loop.create_server(lambda: Door(judge), host, port, backlog=_BACKLOG, start_serving=plain)
    bound: sockets.socket = server.sockets[0]
    real_port = int(bound.getsockname()[1])
    if tls is None:
        return server, real_port
    listening = [sockets.socket(fileno=sockets.dup(one.fileno())) for one in server.sockets]
    server.close()
    return _TlsLanding(judge, tls, listening), real_port


class _TlsLanding:
    """Accepts, asks the judge, shakes hands, and opens a Door behind it."""

    def __init__(self, judge: Judge, tls: ssl.SSLContext, listening: list[sockets.socket]) -> None:
        self._judge = judge
        self._tls = tls
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        for one in listening:
            one.setblocking(False)
            one.listen(_BACKLOG)
            self._loop.add_reader(one, self._accept, one)

    def close(self) -> None:
        """Accept nothing more."""
        for one in self._listening:
            self._loop.remove_reader(one)
            one.close()
        self._listening = []

    def _accept(self, listening: sockets.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor left: one that closes makes room
                self._loop.remove_reader(listening)
                self._loop.call_later(_OUT_OF_DESCRIPTORS_SECONDS, self._resume, listening)
                return
            self._received(accepted, str(address[0]))

    def _resume(self, listening: sockets.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening, self._accept, listening)

    def _received(self, accepted: sockets.socket, peer: str) -> None:
        accepted.setblocking(False)
        guest = self._judge.admit(peer, accepted.close)
        if isinstance(guest, Response):  # there is no way yet to say so
            accepted.close()
            return
        with suppress(OSError):
            accepted.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self._judge.own(self._shake(accepted, guest))

    async def _shake(self, accepted: sockets.socket, guest: Guest) -> None:
        if accepted.fileno() < 0:  # cut off already
            return
        task = asyncio.current_task()
        if task is not None:
            guest.cut = task.cancel
        left = None if guest.deadline is None else max(0.001, guest.deadline - self._loop.time())
        is_open = False
        try:
            await self._loop.connect_accepted_socket(
                lambda: Door(self._judge, guest), accepted, ssl=self._tls, ssl_handshake_timeout=left
            )
            is_open = True
        except OSError:  # no TLS, another version, too late, gone
            pass
        finally:
            if not is_open:
                self._judge.dismiss(guest)
