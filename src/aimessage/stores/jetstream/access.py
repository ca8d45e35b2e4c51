"""How to reach NATS: addresses, credentials in a file, a certificate authority."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import nats
import nats.errors
from nats.aio.client import Client

from aimessage.errors import ConfigInvalid, RelayUnavailable

__all__ = ["Access", "connect"]

_CONNECT_SECONDS = 15.0
_FILE_BYTES = 64 << 10
_HINT = "a .creds file, a line nkey SEED, a line token TOKEN, or a line user NAME PASSWORD"


@dataclass(frozen=True, slots=True)
class Access:
    """Where NATS is and who we are there.

    *monitors*: addresses of the nodes' monitoring, one for each node; *system*: credentials of the system account,
    which may ask every node the same; *certificate* and *key*: ours, for nodes that ask for one.
    """

    urls: tuple[str, ...]
    credentials: Path | None = None
    certificate_authority: Path | None = None
    monitors: tuple[str, ...] = ()
    system: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


async def connect(access: Access) -> Client:
    """Return a client that stays connected. Raises ConfigInvalid, RelayUnavailable: nobody answers."""
    client = Client()
    options = _credentials(access.credentials)
    asks_for_tls = access.certificate_authority is not None or access.certificate is not None
    if asks_for_tls or any(urlsplit(url).scheme in ("tls", "wss") for url in access.urls):
        options["tls"] = _tls(access)
    problems: list[Exception] = []

    async def heard(problem: Exception) -> None:
        problems.append(problem)

    try:
        async with asyncio.timeout(_CONNECT_SECONDS):  # a node may close each try only after its handshake
            await client.connect(
                servers=list(access.urls),
                name="aimessage-server",
                error_cb=heard,
                connect_timeout=3,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; fractions are good
                max_reconnect_attempts=max(4, 4 * len(access.urls)),
                ping_interval=5,
                max_outstanding_pings=2,
                **options,  # type: ignore[arg-type]  # by name
            )
    except (nats.errors.Error, OSError, ValueError) as error:  # TimeoutError is an OSError
        await asyncio.shield(client.close())
        raise _unreachable(access, problems or [error]) from None
    client.options["max_reconnect_attempts"] = -1  # from now on for ever
    return client


def _unreachable(access: Access, problems: Sequence[Exception]) -> Exception:
    where = ", ".join(urlsplit(url).netloc.rpartition("@")[2] for url in access.urls)
    # Each once: a node says why it refuses and closes, and may close so quickly that a later try hears only of that.
    reasons = "; ".join(dict.fromkeys(str(problem).strip() or type(problem).__name__ for problem in problems))
    return RelayUnavailable(
        f"no NATS server can be used at {where}: {reasons}",
        hint="start NATS with JetStream there, and look at --nats-creds and --nats-ca",
    )


def _tls(access: Access) -> ssl.SSLContext:
    authority, certificate = access.certificate_authority, access.certificate
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ssl.SSLError) as error:
        raise ConfigInvalid(f"--nats-ca cannot be used: {error}", hint="give a PEM file of certificates") from None
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, access.key, password=_no_passphrase)
        except (OSError, ssl.SSLError, ConfigInvalid) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "message", None) or "they do not fit"
            raise ConfigInvalid(
                f"--nats-cert and --nats-key cannot be used: {reason}",
                hint="give PEM files of a certificate and of its key, which has no passphrase",
            ) from None
    return context


def _no_passphrase() -> str:
    raise ConfigInvalid("the key has a passphrase")


def _credentials(path: Path | None) -> dict[str, object]:
    """Return what the file says, as options of the client; secrets come from files only. Raises ConfigInvalid."""
    if path is None:
        return {}
    try:
        text = path.read_bytes()[:_FILE_BYTES].decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigInvalid(f"--nats-creds cannot be read: {reason}", hint=_HINT) from None
    if "-----BEGIN NATS USER JWT-----" in text:
        return {"user_credentials": str(path)}
    match text.split():
        case ["nkey", seed]:
            return {"nkeys_seed_str": seed}
        case ["token", token]:
            return {"token": token}
        case ["user", name, password]:
            return {"user": name, "password": password}
    raise ConfigInvalid("--nats-creds holds nothing that NATS takes", hint=_HINT)
