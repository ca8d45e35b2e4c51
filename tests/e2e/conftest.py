import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimessage.client.resident.calling import holder
from aimessage.client.resident.door import DOOR
from support.commands import Home, Relay, running_relay


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with running_relay(tmp_path_factory.mktemp("relay")) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Home:
    return Home(tmp_path / "elsewhere")


@pytest.fixture(autouse=True)
def no_resident_stays_behind(tmp_path: Path) -> Iterator[None]:
    """End the residents that a test has left."""
    yield
    for door in tmp_path.rglob(DOOR):
        if pid := holder(door.parent):  # whether it answers or not
            os.kill(pid, signal.SIGKILL)
