"""What a relay says where an optional package is not installed: a path with everything that is here but that one."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import aimessage


def packages_without(word: str, directory: Path) -> Path:
    """Fill *directory* with links to every installed package whose name does not begin with *word*."""
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not package.name.startswith(word):
            (directory / package.name).symlink_to(package)
    return directory


def test_a_relay_without_the_client_of_nats_says_what_to_install(tmp_path: Path) -> None:
    ours, theirs = Path(aimessage.__file__).parents[1], packages_without("nats", tmp_path)
    command = [sys.executable, "-S", "-m", "aimessage.relay.app", "--store", "nats://127.0.0.1:4222", "--port", "0"]

    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{theirs}{os.pathsep}{ours}"},
    )

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "aimessage-server: the package nats-py is not installed",
        "hint: pip install 'aimessage[nats]'",
    ]
