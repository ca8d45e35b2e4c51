"""The process that keeps link, session and vault warm, and sends for the commands of its own identity.

It sends only: mail is not its business, so that whoever listens gets it. A command asks it for one message under an id
that the command has drawn; if the answer does not come, the command sends the same message itself, under the same id.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from msgspec.structs import replace

from aimessage import __version__
from aimessage.client import outbox
from aimessage.client.account import Here, open_here
from aimessage.client.config import Settings, normal_server
from aimessage.client.connection import Connection
from aimessage.client.delays import Delays
from aimessage.client.locks import take_lock
from aimessage.client.profile import Profile, load_profile
from aimessage.client.resident import errands
from aimessage.client.resident.door import DOOR, FRAME_BYTES, bound, dialling_words, is_ours, packed, unpacked
from aimessage.client.sender import Sender
from aimessage.client.sharing import SharedSends
from aimessage.e2ee.text import decode_text, fold
from aimessage.errors import AimessageError, BadValue
from aimessage.types import MessageId, message_id_text

__all__ = ["Resident", "lock_path", "stay"]

_HEAR_SECONDS = 5.0
_LOOK_SECONDS = 15.0
_LIMIT = timedelta(seconds=30)


def lock_path(directory: Path) -> Path:
    """Return the lock that the resident of the agent in *directory* holds for as long as it lives."""
    return directory / "locks" / "resident"


async def stay(
    settings: Settings, environ: Mapping[str, str], idle: timedelta, on_ready: Callable[[Callable[[], None]], None]
) -> str:
    """Be the resident of an agent until it is told to go, nobody asks for *idle* (0: for ever), or the agent's files
    are replaced; return `stopped`, `idle` or `replaced`. Once the door is open, *on_ready* is given what ends it.

    Where there is a resident already it returns `there`. Raises what opening the agent does.
    """
    notices: list[str] = []
    profile = load_profile(settings.telling(notices.append))
    lock = take_lock(lock_path(profile.directory))
    if lock is None:
        return "there"
    try:
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())  # for whoever has to end us from without
        (profile.directory / DOOR).unlink(missing_ok=True)  # of one that was killed: the lock is ours
        here = open_here(profile, settings.passphrase)
        remembered = load_profile(replace(settings, server=None)).server
        resident = Resident(here, remembered, dialling_words(environ), notices)
        try:
            async with resident.at(bound(str(profile.directory))):
                on_ready(resident.end)
                return await resident.until_over(idle)
        finally:
            (profile.directory / DOOR).unlink(missing_ok=True)
            resident.close()
    finally:
        os.close(lock)


class Resident:
    """What one such process knows.

    *remembered* is the relay's address as a command without one would dial it, *dialling* what the resident's own
    environment says of the way there.
    """

    def __init__(self, here: Here, remembered: str, dialling: bytes, notices: list[str]) -> None:
        self._here = here
        self._remembered = remembered
        self._dialling = dialling
        self._notices = notices
        self._files = _files(here.profile)
        self._connection = Connection(here)
        self._sender = Sender(here, self._connection)
        self._sends = SharedSends(here, self._connection, self._sender)
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._trouble: AimessageError | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._asked_at = here.clock.monotonic()
        self._sent = 0

    @asynccontextmanager
    async def at(self, door: socket.socket) -> AsyncIterator[None]:
        """Serve at *door*, and keep the link; both end with the context, and what is under way is given up."""
        server = await asyncio.start_unix_server(self._begin, sock=door, limit=FRAME_BYTES)
        linked = asyncio.create_task(self._stay_linked())
        try:
            yield
        finally:
            server.close()
            tasks = [linked, *self._serving]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until_over(self, idle: timedelta) -> str:
        """Return why this is over: stopped, idle (nothing was sent for so long) or replaced."""
        while True:
            left = idle.total_seconds() - (self._here.clock.monotonic() - self._asked_at)
            if idle and left <= 0 and not self._serving:
                return "idle"
            wait = min(_LOOK_SECONDS, max(left, 0.05)) if idle else _LOOK_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    return await asyncio.shield(self._over)
            if _files(self._here.profile) != self._files:
                return "replaced"

    def end(self, why: str = "stopped") -> None:
        """Be over."""
        if not self._over.done():
            self._over.set_result(why)

    def close(self) -> None:
        """Close link and vault."""
        self._sends.close()
        self._sender.close()
        self._connection.close()
        self._here.close()

    async def _stay_linked(self) -> None:
        """Keep a link open, and send on it what earlier commands could not."""
        delays = Delays()
        while True:
            try:
                live = await self._connection.get()
                self._trouble, delays = None, Delays()
                await self._sender.clear()
                await asyncio.wait([live.link.lost], timeout=_LOOK_SECONDS)
            except AimessageError as error:
                self._trouble = error
                await asyncio.sleep(next(delays))

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not is_ours(writer.get_extra_info("socket")):
                return
            async with asyncio.timeout(_HEAR_SECONDS):
                size = int.from_bytes(await reader.readexactly(4), "big")
                words = unpacked(await reader.readexactly(min(size, FRAME_BYTES)))
            match words.get("ask"):
                case b"send":
                    await self._send(words, reader, writer)
                case b"hello":
                    writer.write(packed(self._hello()))
                case b"stop":
                    writer.write(packed({"said": b"stopping"}))
                    self.end()
            await writer.drain()
        except (OSError, EOFError, ValueError, KeyError, TimeoutError):
            return  # whoever asked has gone, or speaks another tongue: it helps itself
        finally:
            writer.close()

    def _hello(self) -> dict[str, bytes]:
        trouble = self._trouble.message if self._trouble is not None else ""
        linked = b"yes" if self._connection.is_open else b"no"
        told = {"said": b"hello", "version": __version__.encode(), "linked": linked, "trouble": trouble.encode()}
        return told | {"pid": str(os.getpid()).encode(), "sent": str(self._sent).encode()}

    async def _send(
        self, words: Mapping[str, bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send one message; a command that goes away meanwhile lets go of it, as one that is interrupted does."""
        if not self._is_asked_rightly(words):
            return
        sending = asyncio.create_task(self._carry(words, writer))
        leaving = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._asked_at = self._here.clock.monotonic()
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled():
            sending.result()

    def _is_asked_rightly(self, words: Mapping[str, bytes]) -> bool:
        """Return whether this is our agent, relay and way there, and our version: if not, the command helps itself."""
        if _files(self._here.profile) != self._files:
            self.end("replaced")
            return False
        if words["version"] != __version__.encode() or words["dialling"] != self._dialling:
            return False
        try:
            server = normal_server(words["server"].decode()) if words["server"] else self._remembered
        except BadValue:
            return False
        return server == self._here.profile.server

    async def _carry(self, words: Mapping[str, bytes], writer: asyncio.StreamWriter) -> None:
        chosen, saved = errands.message_id_of(words), MessageId(b"")
        try:
            text = decode_text(words["body"])
            letter = errands.letter_of(words, fold(text) if words.get("fold") else text)
            draft = self._sender.draft(words["to"].decode(), letter)
            draft = replace(draft, chosen=chosen)
            saved = await self._sends.save(draft)
            writer.write(packed({"said": b"saved", "id": saved}))
            fate = await self._sender.brought(draft.recipient, saved, _LIMIT)
            told = {"said": "done", "id": message_id_text(saved), "to": draft.recipient, "state": fate}
            answer = {name: value.encode() for name, value in told.items()}
            writer.write(packed(answer | {"notices": "\n".join(self._notices).encode()}))
            self._sent += 1
        except AimessageError as error:
            if saved:  # if not, nothing was done: the command finds the same fault itself
                writer.write(packed(errands.failed(error, self._notices)))
        except asyncio.CancelledError:
            # Behind the commit that may be due in this turn of the loop.
            asyncio.get_running_loop().call_soon(outbox.let_go, self._here, [saved or chosen])
            raise


def _files(profile: Profile) -> list[tuple[int, int]]:
    """Return which files these are: those of an identity that was replaced are others."""
    found = []
    for path in (profile.directory / "profile.json", profile.vault_path):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((status.st_ino, status.st_mtime_ns if path.suffix == ".json" else 0))
    return found
