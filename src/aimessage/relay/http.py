"""Plain HTTP, sans-I/O: parse one request head, judge it, and write one answer; upgrades are only recognised here."""

import json
import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address

from aimessage.relay.metrics import CONTENT_TYPE

__all__ = [
    "HEALTH",
    "ID_HEADER",
    "Request",
    "Response",
    "Upgrade",
    "client_address",
    "is_in",
    "may_read_metrics",
    "origin_allowed",
    "parse_request",
    "route",
]

HEALTH = b'{"status":"ok","service":"aimessage-server"}'
SUBPROTOCOL = "aimessage.v1"
ID_HEADER = "X-Request-Id"
_JSON = "application/json"
_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PROBES = frozenset({"/health", "/ready"})
_HOPS = frozenset({"x-forwarded-for", "forwarded", "x-real-ip", "via"})
_UPGRADES = frozenset({"/", "/ws"})
_PATHS = _PROBES | _UPGRADES | {"/metrics"}
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request head; header names in lower case, each with all its values."""

    method: str
    path: str
    version: str
    headers: dict[str, list[str]]

    def one(self, name: str) -> str | None:
        """Return the only value of a header; None if it is absent or stands there twice."""
        values = self.headers.get(name, [])
        return values[0] if len(values) == 1 else None

    def words(self, name: str) -> list[str]:
        """Return a header's comma-separated words, in lower case."""
        return [word.strip().lower() for value in self.headers.get(name, []) for word in value.split(",")]

    @property
    def kind(self) -> str:
        """What may be logged of this: a method and a path that we know, and nothing else of it."""
        method = self.method if self.method in _METHODS else "other"
        return f"{method} {self.path if self.path in _PATHS else 'other'}"

    @property
    def is_probe(self) -> bool:
        """Whether this asks for /health or /ready."""
        return self.path in _PROBES


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; the connection closes behind it."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self, *, head_only: bool = False, request_id: str = "") -> bytes:
        """Return the bytes to write; *request_id* is what the log calls the connection."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if request_id:
            lines.append(f"{ID_HEADER}: {request_id}")
        if self.status != HTTPStatus.NO_CONTENT:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}"]
        head = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
        return head if head_only else head + self.body


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A good WebSocket handshake; *headers* go into the 101 answer."""

    key: str
    headers: dict[str, str]


def parse_request(head: bytes) -> Request | None:
    """Return the request that *head* (up to the empty line) is, or None if it is no HTTP/1 request."""
    first, *rest = head.split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0") or not _TOKEN.fullmatch(words[0]):
        return None
    headers: dict[str, list[str]] = {}
    for line in rest:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            return None
        headers.setdefault(name.decode("ascii").lower(), []).append(value.strip(b" \t").decode("latin-1"))
    path = words[1].decode("latin-1").partition("?")[0]
    return Request(words[0].decode("ascii"), path, words[2].decode("ascii"), headers)


def is_in(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Return whether *address* is one of *networks*'."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in network for network in networks)


def client_address(request: Request, peer: str, trusted: Sequence[IPv4Network | IPv6Network]) -> str:
    """Return whose request this is: the last hop that is no trusted proxy. Only a trusted peer is asked for hops."""
    hops = request.words("x-forwarded-for")
    while is_in(peer, trusted) and hops:
        hop = hops.pop()
        try:
            ip_address(hop)
        except ValueError:
            break  # nobody's word: the proxy itself answers for it
        peer = hop
    return peer


def may_read_metrics(request: Request, address: str, readers: str, *, by_trusted: bool) -> bool:
    """Return whether *address*, for which the request counts, may have /metrics: *readers* are private, public or off.

    A proxy that is not trusted would lend everybody its own address: what it forwards is not private.
    """
    if readers != "private":
        return readers == "public"
    return (by_trusted or not _HOPS & request.headers.keys()) and _is_private(address)


def _is_private(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return found.is_private or found.is_loopback


def origin_allowed(request: Request) -> bool:
    """Return whether the Origin is absent or this machine; a browser elsewhere must not reach a local relay."""
    origins = request.headers.get("origin", [])
    return not origins or (len(origins) == 1 and _ORIGIN.fullmatch(origins[0]) is not None)


def route(request: Request, *, unready: str = "", metrics: bytes = b"") -> Response | Upgrade:
    """Return the answer to *request*, or the upgrade that it asks for.

    *unready* is why /ready says no, *metrics* the page under /metrics.
    """
    refusal = _refusal(request)
    if refusal is not None:
        return refusal
    cors = _cors(request)
    if request.path in _UPGRADES and "websocket" in request.words("upgrade"):
        return _upgrade(request, cors)
    if request.method == "OPTIONS":
        return Response(
            204, headers={**cors, "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS", "Allow": "GET, HEAD"}
        )
    if request.method not in ("GET", "HEAD"):
        return Response(405, b"method not allowed\n", headers={**cors, "Allow": "GET, HEAD, OPTIONS"})
    return _page(request.path, cors, unready, metrics)


def _refusal(request: Request) -> Response | None:
    if request.version == "HTTP/1.1" and request.one("host") is None:
        return Response(400, b"exactly one Host header is needed\n")
    if not origin_allowed(request):
        return Response(403, b"this origin is not allowed\n", headers={"Vary": "Origin"})
    if "transfer-encoding" in request.headers or request.headers.get("content-length", ["0"]) != ["0"]:
        return Response(413, b"no request body is expected\n")
    return None


def _cors(request: Request) -> dict[str, str]:
    origin = request.one("origin")
    return {"Vary": "Origin"} if origin is None else {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _page(path: str, cors: dict[str, str], unready: str, metrics: bytes) -> Response:
    match path:
        case "/health":
            return Response(200, HEALTH, _JSON, cors)
        case "/ready":
            if unready:
                return Response(503, json.dumps({"status": "not ready", "reason": unready}).encode(), _JSON, cors)
            return Response(200, b'{"status":"ready"}', _JSON, cors)
        case "/metrics":
            return Response(200, metrics, CONTENT_TYPE, cors)
        case "/" | "/ws":
            return Response(
                426, b"this is an AI Message relay: connect with WebSocket\n", headers={**cors, "Upgrade": "websocket"}
            )
        case _:
            return Response(404, b"not found\n", headers=cors)


def _upgrade(request: Request, cors: dict[str, str]) -> Response | Upgrade:
    """Check what RFC 6455 section 4.2.1 asks of a handshake."""
    if request.method != "GET" or request.version != "HTTP/1.1" or "upgrade" not in request.words("connection"):
        return Response(400, b"this is not a WebSocket handshake\n", headers=cors)
    if request.one("sec-websocket-version") != "13":
        return Response(426, b"WebSocket version 13 is needed\n", headers={**cors, "Sec-WebSocket-Version": "13"})
    key = request.one("sec-websocket-key")
    if key is None or not _is_key(key):
        return Response(400, b"exactly one Sec-WebSocket-Key of 16 bytes is needed\n", headers=cors)
    offered = request.words("sec-websocket-protocol")
    if offered and SUBPROTOCOL not in offered:
        return Response(400, b"the subprotocol is aimessage.v1\n", headers=cors)
    return Upgrade(key, {**cors, "Sec-WebSocket-Protocol": SUBPROTOCOL} if offered else cors)


def _is_key(key: str) -> bool:
    try:
        return len(b64decode(key.encode("ascii"), validate=True)) == 16
    except ValueError:
        return False
