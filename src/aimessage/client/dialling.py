"""The way to a relay: whose word is taken for its certificate, and which proxy stands between. Nothing is dialled here.

Proxies are chosen as curl does it: by the scheme of the relay's address, never for this machine itself.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from aimessage.errors import (
    AimessageError,
    BadValue,
    CertificateRefused,
    ConfigInvalid,
    NotARelay,
    ProxyRefused,
    RelayUnreachable,
)
from aimessage.types import SecretBytes

if TYPE_CHECKING:
    import ssl
    from ipaddress import IPv4Address, IPv6Address

__all__ = ["Dialling", "Proxy", "Route", "dialled_host", "is_loopback", "once"]

_CA_FILE_BYTES = 4 * 1024 * 1024
_PORTS = {"ws": 80, "wss": 443}
_STATUS = r"status (\d{3})\b"
_EXPIRED, _NOT_YET, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 62, 64  # X509_V_ERR_… of OpenSSL
_UNKNOWN_ISSUER = frozenset({18, 19, 20, 21})


def _warn(line: str) -> None:
    import logging

    logging.getLogger(__name__).warning(line)


def dialled_host(server: str) -> str:
    """Return the host of a relay's address as `Prove` names it: lower case, an A-label, no port or brackets."""
    host = urlsplit(server).hostname or ""
    return host.rstrip(".").encode("idna").decode() if not host.isascii() else host.rstrip(".")


def is_loopback(server: str) -> bool:
    """Return whether a relay's address is this machine: localhost, 127.0.0.0/8 or ::1, as it is written."""
    host = dialled_host(server)
    if host in ("localhost", "127.0.0.1"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return *say* without its repetitions: a link that is opened again is no news."""
    said: set[str] = set()

    def say_once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return say_once


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy that speaks CONNECT; *url* may hold a password, *name* is host:port for people."""

    url: SecretBytes
    name: str


class Route(msgspec.Struct, frozen=True):
    """The way to one relay, ready to dial. *tls* is None for ws://."""

    server: str
    proxy: Proxy | None
    tls: "ssl.SSLContext | None"

    @property
    def is_readable(self) -> bool:
        """Whether others on the way can read what is not end-to-end encrypted: who writes to whom, and when."""
        return self.tls is None and not is_loopback(self.server)

    def explain(self, problem: OSError) -> AimessageError:
        """Return what to tell the caller of a connection that did not come about."""
        if self.tls is not None:
            import ssl

            if isinstance(problem, ssl.SSLCertVerificationError):
                return _refused(self.server, problem.verify_code, problem.verify_message)
            if isinstance(problem, ssl.SSLError):
                return NotARelay(f"what answers at {self.server} does not speak TLS 1.2 or later")
        through = f" through the proxy {self.proxy.name}" if self.proxy is not None else ""
        if isinstance(problem, TimeoutError):
            hint = "check that the relay runs, and that it speaks TLS: without, its address is ws://…"
            return RelayUnreachable(f"{self.server} does not answer{through}", hint=hint if self.tls else None)
        reason = problem.strerror or "nobody answers at its address, or the connection broke"
        return RelayUnreachable(f"no connection to {self.server}{through}: {reason}")

    def explain_proxy(self, text: str) -> AimessageError:
        """Return what to tell the caller of the proxy's own refusal, of which the library keeps only a sentence."""
        name = self.proxy.name if self.proxy is not None else ""
        found = re.search(_STATUS, text)
        match found[1] if found else "":
            case "407":
                return ProxyRefused(
                    f"the proxy {name} wants a user name and a password that it knows",
                    hint="put them into the proxy's address: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
                )
            case "403" | "405" as status:
                return ProxyRefused(f"the proxy {name} does not connect to {self.server} (status {status})")
            case status:
                said = f" (status {status})" if status else ""
                return RelayUnreachable(f"the proxy {name} made no connection to {self.server}{said}")


class Dialling(msgspec.Struct, frozen=True):
    """What the way to any relay depends on. Without a *ca_file*, the system's trust store decides."""

    ca_file: Path | None = None
    https_proxy: SecretBytes | None = None  # for wss://
    http_proxy: SecretBytes | None = None  # for ws://
    no_proxy: str = ""
    notice: Callable[[str], None] = _warn

    def believing(self, remembered: str | None) -> "Dialling":
        """Return this with the CA file that registration *remembered*, unless this names one itself."""
        return msgspec.structs.replace(self, ca_file=Path(remembered)) if remembered and self.ca_file is None else self

    def route(self, server: str) -> Route:
        """Return the way to *server*.

        Raises BadValue: the CA file cannot be used; ConfigInvalid: the address of the proxy is none.
        """
        secure = urlsplit(server).scheme == "wss"  # in lower case, however it is written
        return Route(server, self._proxy(server, secure=secure), _trust(self.ca_file) if secure else None)

    def _proxy(self, server: str, *, secure: bool) -> Proxy | None:
        given = self.https_proxy if secure else self.http_proxy
        if given is None or is_loopback(server) or _is_excepted(server, self.no_proxy):
            return None
        return _parse_proxy(given.reveal.decode("utf-8", "replace"))


def _is_excepted(server: str, no_proxy: str) -> bool:
    parts = urlsplit(server)
    host, port = dialled_host(server), str(parts.port or _PORTS[parts.scheme])
    words = [word for word in re.split(r"[\s,]+", no_proxy.lower()) if word]
    return any(word == "*" or _covers(word, host, port) for word in words)


def _covers(word: str, host: str, port: str) -> bool:
    """Return whether one word of NO_PROXY names *host*: a domain, an address or a network, each perhaps with a port."""
    name, colon, given = word.rpartition(":")
    if colon and given.isdecimal() and (":" not in name or name.endswith("]")):
        if given != port:
            return False
        word = name
    from ipaddress import ip_network

    address = _address(host)
    if address is None:
        domain = word.removeprefix("*").strip(".")
        return bool(domain) and f".{host}".endswith(f".{domain}")
    try:
        return address in ip_network(word.strip("[]"), strict=False)
    except ValueError:
        return False


def _address(host: str) -> "IPv4Address | IPv6Address | None":
    from ipaddress import ip_address

    try:
        return ip_address(host)
    except ValueError:
        return None


def _parse_proxy(text: str) -> Proxy:
    """Return the proxy that *text* names; `host:port` means HTTP. No error repeats it: it may hold a password."""
    full = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(full)
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        parts, host, port = urlsplit(""), "", 0
    if parts.scheme not in ("", "http"):
        raise ConfigInvalid(
            f"a proxy of the kind {parts.scheme}:// is not supported",
            hint="set HTTPS_PROXY=http://HOST:PORT, or name the relay's host in NO_PROXY",
        )
    if not host or not full.isascii() or re.search(r"[\s\x00-\x1f\x7f]", full):
        raise ConfigInvalid("the proxy in the environment has no address that can be used",
                            hint="set HTTPS_PROXY=http://HOST:PORT")  # fmt: skip
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    account, at, _ = parts.netloc.rpartition("@")
    return Proxy(SecretBytes(f"http://{account}{at}{name}".encode()), name)


def _trust(ca_file: Path | None) -> "ssl.SSLContext":
    """Return a context that verifies chain and host name, by *ca_file* alone or by the system's trust store."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not create_default_context: it would obey SSLKEYLOGFILE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs()
        return context
    try:
        with ca_file.open("rb") as file:
            content = file.read(_CA_FILE_BYTES + 1)
    except OSError as error:
        raise BadValue(f"the CA file {ca_file} cannot be read: {error.strerror}") from None
    try:
        context.load_verify_locations(cadata=content[:_CA_FILE_BYTES].decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise BadValue(
            f"the CA file {ca_file} holds no certificate", hint="--ca-file names a file in PEM form"
        ) from None
    return context


def _refused(server: str, code: int, text: str) -> CertificateRefused:
    if code == _EXPIRED:
        return CertificateRefused(f"the certificate of {server} has expired", hint="tell whoever runs the relay")
    if code == _NOT_YET:
        return CertificateRefused(f"the certificate of {server} is not valid yet", hint="check this machine's clock")
    if code in (_WRONG_HOST, _WRONG_ADDRESS):
        return CertificateRefused(
            f"the certificate that {server} shows is for another host", hint="dial a name that the certificate holds"
        )
    if code in _UNKNOWN_ISSUER:
        return CertificateRefused(f"the certificate of {server} comes from an unknown issuer")
    return CertificateRefused(f"the certificate of {server} does not verify: {text}")
