"""One message POSTed to a program of ours: signed, to this machine or one that was named, with nothing followed.

Signature and headers: the Standard Webhooks specification, so that existing libraries verify it.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aimessage.cli.octets import read_file
from aimessage.errors import BadValue

if TYPE_CHECKING:
    from aimessage.client import Message

__all__ = ["Webhook", "signature", "webhook_at"]

_PREFIX: Final = b"whsec_"
_LEAST_KEY_BYTES: Final = 16
_ANSWER_BYTES: Final = 64 << 10


def signature(key: bytes, message_id: str, seconds: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: v1, and the HMAC-SHA256 of `id.timestamp.body` in base64."""
    signed = f"{message_id}.{seconds}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def webhook_at(url: str, secret_file: Path | None, allowed: tuple[str, ...]) -> "Webhook":
    """Return the webhook at *url*, on this machine or at an *allowed* host, signed with the key in *secret_file*.

    Raises BadValue: another host, no http address, or no key.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.fragment:
        raise BadValue("this is not an address for --webhook", hint="use http://127.0.0.1:PORT/PATH")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise BadValue("the address for --webhook is not plain ASCII", hint="write other characters as %XX")
    if not (_is_loopback(host) or host in {each.lower() for each in allowed}):
        raise BadValue(f"--webhook names another machine, {host}", hint=f"allow it with: --webhook-allow {host}")
    if secret_file is None:
        raise BadValue(
            "--webhook needs a key to sign with", hint="openssl rand -out FILE 32; --webhook-secret-file FILE"
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Webhook(host, port, target, _key(secret_file), is_secure=parts.scheme == "https")


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to POST, and the key to sign with."""

    host: str
    port: int | None
    target: str
    key: bytes = field(repr=False)
    is_secure: bool = False

    async def post(self, message: "Message", limit: timedelta) -> str | None:
        """POST *message*'s JSON; return None after a 2xx answer, or what went wrong in one phrase."""
        body = json.dumps(message.as_json(), ensure_ascii=False, allow_nan=False).encode()
        connection = self._connection(limit.total_seconds())
        try:
            async with asyncio.timeout(limit.total_seconds()):
                status = await asyncio.to_thread(self._post, connection, message.id, body)
        except TimeoutError:
            return "the webhook took too long"
        except (OSError, http.client.HTTPException) as error:
            return f"the webhook cannot be reached ({type(error).__name__})"
        finally:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)  # a thread that still reads ends now
            connection.close()
        return None if 200 <= status < 300 else f"the webhook answered {status}"

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        # No environment is read here: http.client knows no proxies, and follows no redirect.
        if self.is_secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self.host, self.port, timeout=seconds, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=seconds)

    def _post(self, connection: http.client.HTTPConnection, message_id: str, body: bytes) -> int:
        seconds = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "aimessage",
            "webhook-id": message_id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": signature(self.key, message_id, seconds, body),
        }
        connection.request("POST", self.target, body, headers)
        answer = connection.getresponse()
        answer.read(_ANSWER_BYTES)  # what more there is goes with the connection
        return answer.status


def _key(path: Path) -> bytes:
    key = read_file(str(path)).strip()
    if key.startswith(_PREFIX):
        try:
            key = base64.b64decode(key.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise BadValue("the key of the webhook is no base64 behind whsec_", hint=f"check the file {path}") from None
    if len(key) < _LEAST_KEY_BYTES:
        raise BadValue("the key of the webhook is too short", hint=f"openssl rand -hex -out {path} 32")
    return key


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
