"""Structured logs, one event a line, on stderr; never user data, at any level. Success paths are quiet.

Every line that concerns one connection has its id as `link`, which the answer to its HTTP request names as well.
"""

import json
import logging
import sys

import click
import structlog

from aimessage.errors import AimessageError

__all__ = ["LEVELS", "complain", "configure_logs", "event_log", "speaking_of"]


LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs(log_format: str, log_level: str = "info") -> None:
    """Set up structlog for *log_format* (`console` or `json`), and silence the libraries' own loggers."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[log_level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    for name in ("picows", "aiofastnet"):  # they tell every connection, and flood after a lost one
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def speaking_of(link: str) -> None:
    """From now on every line that this task logs has the id of a connection."""
    structlog.contextvars.bind_contextvars(link=link)


def event_log() -> structlog.typing.FilteringBoundLogger:
    """Return the relay's log; where nobody has set it up, as in a test, it speaks from `info` on."""
    if not structlog.is_configured():
        configure_logs("console")
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log


def complain(error: AimessageError, log_format: str) -> None:
    """Tell on stderr why the process ends: one sentence and its hint, or one JSON line."""
    if log_format == "json":
        line = {"event": "failed", "level": "error", "error": error.code, "message": error.message, "hint": error.hint}
        click.echo(json.dumps(line), err=True)
        return
    click.echo(f"aimessage-server: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
