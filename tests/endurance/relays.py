"""One store, many lives: a relay that is started again and again on the same data."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from support.commands import Relay, running_relay

__all__ = ["Lives", "say", "url_of"]

_NO_QUOTAS = ("--mailbox-messages", "0", "--mailbox-bytes", "0", "--mailbox-sender-share", "0")


class Lives:
    """Starts relays on the store *data*; each life has its own log under *logs*."""

    def __init__(self, data: Path, logs: Path, *flags: str) -> None:
        self.data = data
        self._logs = logs
        self._flags = (*_NO_QUOTAS, *flags)
        self._number = count(1)

    @contextmanager
    def relay(self) -> Iterator[Relay]:
        """Run one relay, without rates and quotas."""
        life = self._logs / f"life-{next(self._number)}"
        with running_relay(life, "--db-path", str(self.data), *self._flags) as running:
            yield running


def url_of(relay: Relay) -> str:
    """Return the address under which a peer dials a relay."""
    return f"ws://127.0.0.1:{relay.port}"


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
