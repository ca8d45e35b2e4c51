"""Settings from flags and environment: parsed once, believed below. The only reader of the environment."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from aimessage.client.dialling import Dialling, once
from aimessage.errors import BadValue
from aimessage.types import SecretBytes

__all__ = ["Settings", "load_settings", "normal_server"]

_AGENT = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"  # patterns as text: `re` compiles and keeps those that are used
_PLAIN_HOST = r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*"
_UNSEEN = r"[\s\x00-\x1f\x7f]"
_SECRET_FILE_BYTES = 4096


class Settings(msgspec.Struct, frozen=True):
    """Which agent, where its files are, and what the environment says of its identity."""

    home: Path
    agent: str = "default"
    server: str | None = None
    username: str | None = None
    token: SecretBytes | None = None
    passphrase: SecretBytes | None = None
    invite: SecretBytes | None = None
    dialling: Dialling = msgspec.field(default_factory=Dialling)

    @property
    def directory(self) -> Path:
        """The agent's own directory."""
        return self.home / "agents" / self.agent

    def telling(self, notice: Callable[[str], None]) -> "Settings":
        """Return these settings with *notice* being told, once, what the caller should know of the connection."""
        return replace(self, dialling=replace(self.dialling, notice=once(notice)))


def load_settings(
    environ: Mapping[str, str],
    *,
    agent: str | None = None,
    server: str | None = None,
    token_file: Path | None = None,
    passphrase_file: Path | None = None,
    ca_file: Path | None = None,
) -> Settings:
    """Return the settings; a flag beats the environment.

    Raises BadValue: a malformed agent name or server address, or a secret file that cannot be read.
    """
    name = agent if agent is not None else environ.get("AIMESSAGE_AGENT") or "default"
    if not re.fullmatch(_AGENT, name):
        raise BadValue("this is not an agent name", hint="use letters, digits, _ and -, at most 64")
    address = server or environ.get("AIMESSAGE_SERVER")
    return Settings(
        home=Path(environ.get("AIMESSAGE_HOME") or Path.home() / ".aimessage"),
        agent=name,
        server=normal_server(address) if address else None,
        username=environ.get("AIMESSAGE_USERNAME") or None,
        token=_secret(token_file) if token_file else _from(environ, "AIMESSAGE_TOKEN"),
        passphrase=_secret(passphrase_file) if passphrase_file else None,
        invite=_from(environ, "AIMESSAGE_INVITE"),
        dialling=_dialling(environ, ca_file),
    )


def normal_server(address: str) -> str:
    """Return the address without a trailing slash. Raises BadValue: not ws:// or wss:// with a host."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        if not re.fullmatch(_PLAIN_HOST, host):
            host.encode("idna")  # whose tables cost a cold command 2 ms
        plain = not (parts.query or parts.fragment or "@" in parts.netloc) and re.search(_UNSEEN, address) is None
        good = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0 and plain
    except ValueError:
        good = False
    if not good:
        raise BadValue("this is not a relay's address", hint="use ws://host:port or wss://host:port")
    return address.rstrip("/")


def _dialling(environ: Mapping[str, str], ca_file: Path | None) -> Dialling:
    """Return what curl would read there. HTTP_PROXY is not read: on a web server, a request's header could set it."""

    def first(*names: str) -> SecretBytes | None:
        found = next((value for name in names if (value := environ.get(name))), None)
        return SecretBytes(found.encode("utf-8", "replace")) if found else None

    named = environ.get("AIMESSAGE_CA_FILE")
    return Dialling(
        ca_file=ca_file or (Path(named) if named else None),
        https_proxy=first("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
        http_proxy=first("http_proxy", "all_proxy", "ALL_PROXY"),
        no_proxy=environ.get("no_proxy") or environ.get("NO_PROXY") or "",
    )


def _from(environ: Mapping[str, str], name: str) -> SecretBytes | None:
    text = environ.get(name)
    return SecretBytes(text.encode()) if text else None


def _secret(path: Path) -> SecretBytes:
    try:
        with path.open("rb") as file:
            content = file.read(_SECRET_FILE_BYTES + 1)
    except OSError as error:
        raise BadValue(f"the file {path} cannot be read: {error.strerror}") from None
    if len(content) > _SECRET_FILE_BYTES:
        raise BadValue(f"the file {path} is too large for a token or a passphrase", hint="name a file of at most 4 KiB")
    return SecretBytes(content.strip())
