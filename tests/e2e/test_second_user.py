"""Another user of the machine learns nothing: not from files, not from sockets, not from argv, at umask 000."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Home, running_relay

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="it needs root, to become another user")
NOBODY = 65534
BODY = "canary-in-a-body-7f3a"
READ_ALL = "find {0} -exec cat {{}} + 2>/dev/null; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; true"


def shell(script: str, *, as_nobody: bool) -> bytes:
    user = NOBODY if as_nobody else 0
    return subprocess.run(
        ["/bin/sh", "-c", script], user=user, group=user, extra_groups=[], capture_output=True, cwd="/", check=False
    ).stdout


@pytest.fixture
def open_place() -> Iterator[Path]:
    """Return a directory into which everybody may look, under others into which everybody may."""
    umask = os.umask(0)
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        os.umask(umask)
        shutil.rmtree(place)


def test_a_second_user_reads_no_secret_and_enters_no_socket(open_place: Path) -> None:
    home = Home(open_place / "home")
    passphrase = open_place / "passphrase"
    passphrase.write_text("correct horse\n")
    passphrase.chmod(0o600)
    with running_relay(open_place / "relay") as relay:
        for name in ("alice", "bobby"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        home.run("register", "-a", "locked", "-u", "locked", "-s", relay.url, "--passphrase-file", str(passphrase)).ok()
        with home.start("listen", "-a", "bobby", "--manual-ack", "--json") as listening:
            home.run("send", "-a", "alice", "-t", "bobby", "-m", "-", stdin=BODY.encode()).ok()
            assert listening.stdout is not None
            assert BODY.encode() in listening.stdout.readline()  # everything is open and in use now
            tokens = [home.run("token", "show", "-a", name).ok().out.strip() for name in ("alice", "bobby")]
            secrets = [*tokens, BODY.encode(), b"correct horse"]
            script = READ_ALL.format(open_place)
            seen, all_there_is = shell(script, as_nobody=True), shell(script, as_nobody=False)
            reach = shell(f"find {open_place} -readable -o -writable", as_nobody=True).decode().split()
            sockets = shell(f"find {open_place} -type s", as_nobody=False).decode().split()
            inner = list(home.path.rglob("*"))
            listening.terminate()

    assert all(token in all_there_is for token in tokens)  # the search finds what it may read
    assert [secret for secret in secrets if secret in seen] == []
    assert sockets, "the relay has an operator's socket, or this test looks at the wrong place"
    assert len(inner) > 12
    ours = {str(open_place), str(open_place / "relay"), str(relay.log_path)}
    assert {path for path in reach if path not in ours} == set()


def test_what_commands_write_meanwhile_is_private_from_its_first_byte(open_place: Path) -> None:
    home = Home(open_place / "home")
    with running_relay(open_place / "relay") as relay:
        watcher = f"while :; do find {home.path} -type f -exec cat {{}} + 2>/dev/null; done"
        with subprocess.Popen(
            ["/bin/sh", "-c", watcher], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", stdout=subprocess.PIPE,
            start_new_session=True,
        ) as spy:  # fmt: skip
            for number in range(5):
                home.run("register", "-a", f"a{number}", "-u", f"agent-{number}", "-s", relay.url).ok()
            os.killpg(spy.pid, 9)
            assert spy.stdout is not None
            assert spy.stdout.read() == b""
