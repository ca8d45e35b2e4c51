"""The health check of a container or a supervisor: ask the relay's own port, exit 0 or 1; nothing else is needed."""

import http.client
import json
import ssl
import sys

import click

from aimessage.relay.config import RelayConfig
from aimessage.relay.operate import Flags, load_or_exit

__all__ = ["PROBE"]

_ANSWER_BYTES = 4096
_OURSELVES = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104 - compared with, not bound to


@click.command("probe")
@click.option("--ready", is_flag=True, help="ask /ready (can it take messages now?) instead of /health")
@click.option("--timeout", type=click.FloatRange(0.1, 60), default=3.0, show_default=True, help="seconds")
@click.pass_obj
def PROBE(flags: Flags, ready: bool, timeout: float) -> None:  # noqa: N802 - a command is a constant of this module
    """Ask the relay on this machine how it is, as a container's health check does; exit 0 if it is well, else 1.

    It is asked at the port that these flags, this environment and this file would have it listen on.
    """
    config = load_or_exit(flags)
    page = "/ready" if ready else "/health"
    try:
        status, answer = _ask(config, page, timeout)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or "no answer that a relay gives"
        _tell(config, well=False, said=f"{page} on port {config.port}: {reason.lower()}")
        sys.exit(1)
    _tell(config, well=status == http.HTTPStatus.OK, said=f"{page}: {answer}")
    sys.exit(0 if status == http.HTTPStatus.OK else 1)


def _ask(config: RelayConfig, page: str, timeout: float) -> tuple[int, str]:
    host = _OURSELVES.get(config.host, config.host)
    if config.tls_cert is None:
        connection = http.client.HTTPConnection(host, config.port, timeout=timeout)
    else:  # the certificate names the relay's public host, not this machine, and nothing secret is said
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, config.port, timeout=timeout, context=unverified)
    try:
        connection.request("GET", page)
        response = connection.getresponse()
        answer = json.loads(response.read(_ANSWER_BYTES))
    finally:
        connection.close()
    words = [str(answer[key]) for key in ("status", "reason") if key in answer] if isinstance(answer, dict) else []
    return response.status, ", ".join(words)


def _tell(config: RelayConfig, *, well: bool, said: str) -> None:
    if config.log_format == "json":
        said = json.dumps({"event": "probe", "level": "info" if well else "error", "said": said})
    click.echo(said, err=not well)
