"""Structured logs, one event a line, on stderr; never user data, at any level. Success paths are quiet."""

import logging
import sys

import structlog

__all__ = ["configure_logs", "event_log"]


def configure_logs(log_format: str) -> None:
    """Set up structlog for *log_format* (`console` or `json`), and silence the libraries' own loggers."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    for name in ("picows", "aiofastnet"):  # they tell every connection, and flood after a lost one
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def event_log() -> structlog.typing.FilteringBoundLogger:
    """Return the relay's log."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log
