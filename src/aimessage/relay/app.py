"""The command `aimessage-server`: read the configuration, run one relay until a signal, say what happened."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import click
import uvloop

from aimessage import __version__
from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.errors import AimessageError, InvalidInput, StoreDamaged
from aimessage.relay.asking import ASKING
from aimessage.relay.config import SETTINGS, RelayConfig, defaults_file
from aimessage.relay.faults import behind
from aimessage.relay.inviting import INVITING
from aimessage.relay.log import complain, configure_logs, event_log
from aimessage.relay.migrate import MIGRATING
from aimessage.relay.operate import COMMANDS, exit_code, load_or_exit
from aimessage.relay.probe import PROBE
from aimessage.relay.service import serving
from aimessage.relay.tls import Tls, load_tls

__all__ = ["main"]

_WILDCARDS = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104  # compared with, not bound to
_REPEATABLE = frozenset({"public_host", "trusted_proxy", "nats_monitor"})
_CommandT = TypeVar("_CommandT", bound=Callable[..., object])


def _flags(command: _CommandT) -> _CommandT:
    for setting in reversed(SETTINGS):
        text = f"{setting.help}  [${setting.variable}; default: {setting.default or 'any'}]"
        if setting.is_switch:
            option = click.option(setting.flag, setting.name, flag_value="on", default=None, help=text)
        else:
            option = click.option(setting.flag, setting.name, multiple=setting.name in _REPEATABLE, help=text)
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@_flags
@click.version_option(__version__, prog_name="aimessage-server")
@click.pass_context
def _command(context: click.Context, /, **flags: str | None) -> None:
    """Run an AI Message relay: it carries sealed messages between agents and can read none of them."""
    context.obj = flags
    if context.invoked_subcommand is None:
        config = load_or_exit(flags)
        configure_logs(config.log_format, config.log_level)
        sys.exit(_run(config))


@_command.group("config")
def _config() -> None:
    """What the relay would run with."""


@_config.command("show")
@click.pass_obj
def _show(flags: dict[str, str | None]) -> None:
    """Print the configuration as JSON."""
    config = load_or_exit(flags)
    quotas = config.quotas
    click.echo(
        json.dumps(
            {
                "host": config.host,
                "port": config.port,
                "db_path": str(config.db_path),
                "store": config.store,
                "log_format": config.log_format,
                "log_level": config.log_level,
                "registration": config.registration,
                "metrics": config.metrics,
                "rate_global": config.rate_global,
                "rate_connection": config.rate_connection,
                "mailbox_messages": quotas.messages,
                "mailbox_bytes": quotas.bytes,
                "mailbox_sender_share": quotas.sender_share,
                "public_host": list(config.public_hosts),
                "paranoid_durability": config.paranoid_durability,
                "tls_cert": _named(config.tls_cert),
                "tls_key": _named(config.tls_key),
                "trusted_proxy": [str(network) for network in config.trusted_proxies],
                "replicas": config.nats.replicas,
                "nats_creds": _named(config.nats.credentials),
                "nats_ca": _named(config.nats.certificate_authority),
                "nats_cert": _named(config.nats.certificate),
                "nats_key": _named(config.nats.key),
                "nats_system_creds": _named(config.nats.system),
                "nats_monitor": list(config.nats.monitors),
                "unsafe_durability": config.nats.unsafe_durability,
                **asdict(config.limits),
                "connections": config.limits.connection_bound(),
                "connections_automatic": config.limits.connections is None,
            },
            indent=2,
        )
    )


def _named(path: Path | None) -> str | None:
    """A file is shown by its name alone, never by what is in it."""
    return None if path is None else str(path)


@_config.command("defaults")
def _defaults() -> None:
    """Print every setting with its default, as a file for --config."""
    click.echo(defaults_file(), nl=False)


@_config.command("check")
@click.pass_obj
def _check(flags: dict[str, str | None]) -> None:
    """Exit 0 if the relay could run with this configuration."""
    config = load_or_exit(flags)
    try:
        load_tls(config.tls_cert, config.tls_key)
    except AimessageError as error:
        complain(error, config.log_format)
        sys.exit(exit_code(error))
    click.echo("the configuration is good")


def _run(config: RelayConfig) -> int:
    try:
        uvloop.run(_serve(config))
    except AimessageError as error:
        complain(error, config.log_format)
        return exit_code(error)
    except Exception as problem:  # noqa: BLE001 - the process's own boundary: one sentence, and the whole in the log
        return _crashed(problem, config.log_format)
    return 0


def _crashed(problem: Exception, log_format: str) -> int:
    """Tell the first cause of a standing task's failure, or of our own bug; return the exit code."""
    ours = behind(problem, StoreDamaged) or behind(problem, AimessageError)
    if ours is not None:
        complain(ours, log_format)
        return exit_code(ours)
    first = problem.exceptions[0] if isinstance(problem, ExceptionGroup) else problem
    complain(AimessageError(f"the relay failed: {type(first).__name__}; this is our bug"), log_format)
    event_log().error("crashed", exc_info=problem)
    return 1


async def _serve(config: RelayConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(config, clock=SystemClock(), entropy=system_entropy) as service:
        loop.add_signal_handler(signal.SIGHUP, _reload, service.tls)
        _banner(config, service.port)
        if config.host in _WILDCARDS and not config.public_hosts:
            event_log().warning("any host name is accepted at login; name this relay's own with --public-host")
        await stop.wait()


def _reload(tls: Tls | None) -> None:
    """SIGHUP: read the certificate again."""
    if tls is None:
        event_log().warning("nothing to read again", hint="only the files of --tls-cert and --tls-key are")
        return
    try:
        tls.reload()
    except AimessageError as error:
        event_log().error("the old certificate stays", reason=error.message, hint=error.hint)
    else:
        event_log().info("the certificate was read again")


def _banner(config: RelayConfig, port: int) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host
    url = f"{'wss' if config.tls_cert else 'ws'}://{host}:{port}"
    store = config.store if config.store == "memory" or config.nats.urls else f"{config.store} in {config.db_path}"
    if config.log_format == "json":
        click.echo(json.dumps({"event": "listening", "level": "info", "url": url, "store": store}))
    else:
        click.echo(f"aimessage-server listening on {url} (store {store})")
    sys.stdout.flush()


for command in (*COMMANDS, *ASKING, *INVITING, *MIGRATING, PROBE):
    _command.add_command(command)


def main() -> None:
    """Run the command line."""
    try:
        code = _command.main(prog_name="aimessage-server", standalone_mode=False)
    except click.UsageError as error:
        hint = f"{error.ctx.command_path} --help" if error.ctx else "aimessage-server --help"
        complain(InvalidInput(error.format_message(), hint=hint), os.environ.get("LOG_FORMAT", ""))
        code = 2
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
