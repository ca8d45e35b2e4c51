"""One frozen configuration, validated before anything starts: flag > environment > file > default."""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from aimessage.errors import ConfigInvalid
from aimessage.relay.limits import LIMITS, RANGES, RelayLimits
from aimessage.relay.log import LEVELS
from aimessage.stores.ports import Quotas

__all__ = ["SETTINGS", "NatsSettings", "RelayConfig", "Setting", "defaults_file", "load_config", "plain_host"]


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """How a relay with --store nats://… reaches NATS; no *urls* with any other store."""

    urls: tuple[str, ...]
    replicas: int
    credentials: Path | None
    certificate_authority: Path | None
    monitors: tuple[str, ...]
    system: Path | None
    certificate: Path | None
    key: Path | None
    unsafe_durability: bool


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """What a relay runs with; rates in requests a second, 0 for none."""

    host: str
    port: int
    db_path: Path
    store: str
    log_format: str
    log_level: str
    registration: str
    metrics: str
    rate_global: float
    rate_connection: float
    quotas: Quotas
    public_hosts: tuple[str, ...]
    paranoid_durability: bool
    tls_cert: Path | None
    tls_key: Path | None
    limits: RelayLimits
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    nats: NatsSettings


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: its name as a flag (with dashes), its environment variable, its default and its parser."""

    name: str
    variable: str
    default: str
    parse: Callable[[str], object]
    help: str
    is_switch: bool = False  # the flag alone says yes

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")


def plain_host(raw: str) -> str:
    """Return a host as it is compared: lower case, an A-label, no brackets, port or trailing dot. Raises ValueError."""
    host = raw.strip().lower()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    host = host.removesuffix(".")
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _whole(raw: str) -> int:
    value = int(raw)
    if value < 0:
        raise ValueError
    return value


def _port(raw: str) -> int:
    if not 0 <= (port := int(raw)) <= 65_535:
        raise ValueError
    return port


def _rate(raw: str) -> float:
    value = float(raw)
    if not math.isfinite(value) or value < 0:
        raise ValueError
    return value


def _share(raw: str) -> float:
    if not 0 <= (share := float(raw)) <= 1:
        raise ValueError
    return share


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw not in words:
            raise ValueError
        return raw

    return parse


def _store(raw: str) -> str:
    if raw in ("rocksdb", "memory"):
        return raw
    parts = [urlsplit(part.strip()) for part in raw.split(",")]
    if not all(part.scheme in _NATS and part.hostname and part.port != 0 for part in parts):
        raise ValueError
    if any("@" in part.netloc for part in parts):  # where every user of the machine can read it
        raise ConfigInvalid("an address of NATS holds no name or password", hint="put them into a file: --nats-creds")
    return raw


def _monitors(raw: str) -> tuple[str, ...]:
    urls = tuple(part.strip() for part in raw.split(",") if part.strip())
    if not all(urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname for url in urls):
        raise ValueError
    return urls


def _replicas(raw: str) -> int:
    if (count := int(raw)) not in (1, 3, 5):
        raise ValueError
    return count


def _text(raw: str) -> str:
    if not raw.strip():
        raise ValueError
    return raw.strip()


def _path(raw: str) -> Path | None:
    return Path(raw) if raw.strip() else None


def _switch(raw: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if raw.strip().lower() not in words:
        raise ValueError
    return words[raw.strip().lower()]


def _hosts(raw: str) -> tuple[str, ...]:
    hosts = tuple(plain_host(part) for part in raw.split(",") if part.strip())
    if not all(hosts):
        raise ValueError
    return hosts


def _networks(raw: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part.strip(), strict=False) for part in raw.split(",") if part.strip())


def _within(name: str) -> Callable[[str], int]:
    least, most = RANGES[name]

    def parse(raw: str) -> int:
        value = int(raw)
        if value and not least <= value <= most:
            raise ValueError
        return value

    return parse


def _whole_or_auto(raw: str) -> int | None:
    return None if raw == "auto" else _whole(raw)


REGISTRATIONS = ("open", "invite", "closed")
_FILE_BYTES = 64 << 10
_NATS = frozenset({"nats", "tls", "ws", "wss"})
_T = TypeVar("_T")
_DEFAULT = Quotas()

_LIMIT_PARSERS: dict[str, Callable[[str], object]] = {
    "rate_probes": _rate,
    "rate_metrics": _rate,
    **{name: _within(name) for name in RANGES},
    "connections": _whole_or_auto,
    "connections_per_address": _whole,
    "unauthenticated": _whole,
    "login_seconds": _rate,
    "heartbeat_seconds": _rate,
    "stall_seconds": _rate,
    "lookups": _whole,
    "pairs": _whole,
    "registrations": _whole,
}

SETTINGS = (
    Setting("host", "HOST_ADDRESS", "127.0.0.1", _text, "address to listen on"),
    Setting("port", "PORT", "8080", _port, "port to listen on; 0 takes a free one"),
    Setting("db_path", "DB_PATH", "./data", _text, "directory of the durable store"),
    Setting("store", "STORE", "rocksdb", _store, "rocksdb, memory, or nats://HOST:PORT[,…]"),
    Setting("log_format", "LOG_FORMAT", "console", _one_of("console", "json"), "console or json"),
    Setting(
        "registration", "REGISTRATION", "open", _one_of(*REGISTRATIONS), "who may register: open, invite or closed"
    ),
    Setting(
        "log_level", "LOG_LEVEL", "info", _one_of(*LEVELS), "the least that is logged: debug, info, warning, error"
    ),
    Setting("metrics", "METRICS", "private", _one_of("private", "public", "off"), "who may read /metrics"),
    Setting("rate_global", "RATE_LIMIT_GLOBAL", "100", _rate, "handshakes, HTTP requests, registrations a second"),
    Setting("rate_connection", "RATE_LIMIT_CONNECTION", "10", _rate, "requests a second on one connection"),
    Setting("mailbox_messages", "MAILBOX_MESSAGES", str(_DEFAULT.messages), _whole, "envelopes a mailbox holds"),
    Setting("mailbox_bytes", "MAILBOX_BYTES", str(_DEFAULT.bytes), _whole, "bytes a mailbox holds"),
    Setting("mailbox_sender_share", "MAILBOX_SENDER_SHARE", str(_DEFAULT.sender_share), _share, "share of one sender"),
    Setting("public_host", "PUBLIC_HOST", "", _hosts, "name under which clients dial this relay; repeatable"),
    Setting(
        "paranoid_durability",
        "PARANOID_DURABILITY",
        "off",
        _switch,
        "keep a synced mark of every commit",
        is_switch=True,
    ),
    Setting("tls_cert", "TLS_CERT", "", _path, "PEM file with the certificate and its chain; read again on SIGHUP"),
    Setting("tls_key", "TLS_KEY", "", _path, "PEM file with the certificate's key"),
    Setting("config", "AIMESSAGE_SERVER_CONFIG", "", _path, "TOML file with any of these settings"),
    Setting("trusted_proxy", "TRUSTED_PROXY", "", _networks, "proxy whose X-Forwarded-For is believed; repeatable"),
    Setting("replicas", "NATS_REPLICAS", "3", _replicas, "copies of each stream in NATS: 1, 3 or 5"),
    Setting("nats_creds", "NATS_CREDS", "", _path, "file with credentials for NATS: .creds, nkey, token, or user"),
    Setting("nats_ca", "NATS_CA", "", _path, "PEM file of the authorities that certify NATS; asks for TLS"),
    Setting("nats_cert", "NATS_CERT", "", _path, "PEM file with the relay's certificate for NATS"),
    Setting("nats_key", "NATS_KEY", "", _path, "PEM file with that certificate's key"),
    Setting("nats_monitor", "NATS_MONITOR", "", _monitors, "monitoring address of a node of NATS; repeatable"),
    Setting(
        "nats_system_creds",
        "NATS_SYSTEM_CREDS",
        "",
        _path,
        "file with credentials of NATS's system account, to confirm durability without --nats-monitor",
    ),
    Setting(
        "unsafe_durability",
        "UNSAFE_DURABILITY",
        "off",
        _switch,
        "start though it is not confirmed that NATS syncs what it acknowledges",
        is_switch=True,
    ),
    *(Setting(row.name, row.variable, row.default, _LIMIT_PARSERS[row.name], row.help) for row in LIMITS),
)
"""Every setting. 0 switches a rate or a quota off."""


def load_config(flags: Mapping[str, str | Sequence[str] | None], environ: Mapping[str, str]) -> RelayConfig:
    """Return the configuration.

    Raises ConfigInvalid: a value that the relay cannot run with, named by where it came from.
    """
    file = _file(flags, environ)
    values = {setting.name: _value(setting, flags.get(setting.name), environ, file) for setting in SETTINGS}
    if values["paranoid_durability"] and values["store"] != "rocksdb":
        raise ConfigInvalid(
            "--paranoid-durability needs a store of the relay's own on disk",
            hint="leave it out, or run with --store rocksdb",
        )
    return RelayConfig(
        host=str(values["host"]),
        port=_as(int, values["port"]),
        db_path=Path(str(values["db_path"])),
        store=str(values["store"]),
        log_format=str(values["log_format"]),
        log_level=str(values["log_level"]),
        registration=str(values["registration"]),
        metrics=str(values["metrics"]),
        rate_global=_as(float, values["rate_global"]),
        rate_connection=_as(float, values["rate_connection"]),
        quotas=Quotas(
            messages=_as(int, values["mailbox_messages"]),
            bytes=_as(int, values["mailbox_bytes"]),
            sender_share=_as(float, values["mailbox_sender_share"]),
        ),
        public_hosts=_as(tuple, values["public_host"]),
        paranoid_durability=_as(bool, values["paranoid_durability"]),
        tls_cert=_as(Path, values["tls_cert"]) if values["tls_cert"] else None,
        tls_key=_as(Path, values["tls_key"]) if values["tls_key"] else None,
        limits=RelayLimits(**{row.name: values[row.name] for row in LIMITS}),  # type: ignore[arg-type]  # as parsed
        trusted_proxies=_as(tuple, values["trusted_proxy"]),
        nats=_nats(values),
    )


def _nats(values: Mapping[str, object]) -> NatsSettings:
    store = str(values["store"])
    paths = {
        name: _as(Path, values[name]) if values[name] else None
        for name in ("nats_creds", "nats_ca", "nats_system_creds", "nats_cert", "nats_key")
    }
    if (paths["nats_cert"] is None) != (paths["nats_key"] is None):
        raise ConfigInvalid(
            "a certificate and its key belong together", hint="give --nats-cert and --nats-key, or none"
        )
    return NatsSettings(
        urls=tuple(part.strip() for part in store.split(",")) if "://" in store else (),
        replicas=_as(int, values["replicas"]),
        credentials=paths["nats_creds"],
        certificate_authority=paths["nats_ca"],
        monitors=_as(tuple, values["nats_monitor"]),
        system=paths["nats_system_creds"],
        certificate=paths["nats_cert"],
        key=paths["nats_key"],
        unsafe_durability=_as(bool, values["unsafe_durability"]),
    )


def defaults_file() -> str:
    """Return every setting with its default as a configuration file, which sets nothing that was not so."""
    lines = ["# Every setting of the relay and its default. A flag or an environment variable goes before this file."]
    for setting in SETTINGS:
        if setting.name != "config":
            value = f'"{setting.default}"' if setting.default else '""'
            lines += ["", f"# {setting.help}  [{setting.flag}, ${setting.variable}]", f"# {setting.name} = {value}"]
    return "\n".join(lines) + "\n"


def _file(flags: Mapping[str, str | Sequence[str] | None], environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return what the configuration file sets, each value as a flag would have it. Raises ConfigInvalid."""
    given = flags.get("config") or environ.get("AIMESSAGE_SERVER_CONFIG")
    if not given or not isinstance(given, str):
        return {}
    hint = "the names and defaults are in: aimessage-server config defaults"
    try:
        with Path(given).open("rb") as stream:
            octets = stream.read(_FILE_BYTES + 1)
        if len(octets) > _FILE_BYTES:
            raise ConfigInvalid(f"the configuration file is larger than {_FILE_BYTES} bytes", hint=hint)
        table = tomllib.loads(octets.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigInvalid(f"the configuration file cannot be read: {error}", hint=hint) from None
    for name in table:
        if name == "config" or all(name != setting.name for setting in SETTINGS):
            raise ConfigInvalid(f"the configuration file sets {name!r}, which is no setting", hint=hint)
    return {name: _as_typed(value) for name, value in table.items()}


def _as_typed(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(str(part) for part in value) if isinstance(value, list) else str(value)


def _value(
    setting: Setting, flag: str | Sequence[str] | None, environ: Mapping[str, str], file: Mapping[str, str]
) -> object:
    given = flag if isinstance(flag, str) or flag is None else ",".join(flag)
    source = setting.flag
    if not given:
        given, source = environ.get(setting.variable) or None, setting.variable
    if not given and setting.name in file:
        given, source = file[setting.name], f"{setting.name} in the configuration file"
    raw = setting.default if given is None else given
    try:
        return setting.parse(raw)
    except ValueError:
        raise ConfigInvalid(
            f"{source} cannot be {raw!r}", hint=f"{setting.flag}: {setting.help}; see aimessage-server --help"
        ) from None


def _as(kind: type[_T], value: object) -> _T:
    if not isinstance(value, kind):
        raise TypeError("a setting's parser returned the wrong type")
    return value
