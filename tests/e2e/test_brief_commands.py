"""Commands that look, ask and end: without an event loop, and with the effect that they have on one."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aimessage.client import Settings, connect
from support.commands import BIN, Home, Relay, running_relay

TOO_HEAVY = {
    "asyncio", "email", "h11", "http", "logging", "picows", "prometheus_client", "python_socks", "rocksdict", "ssl",
    "structlog", "traceback", "uvloop", "wsproto", "stringprep",
}  # fmt: skip
BACKLOG = 1_200  # more than a relay delivers without an acknowledgement


@contextmanager
def silent_relay() -> Iterator[tuple[str, threading.Event]]:
    """Accept connections and never say a word; yield the address, and what is set once somebody has come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held, has_come = list[socket.socket](), threading.Event()

        def accept() -> None:
            while True:
                try:
                    held.append(listening.accept()[0])
                    has_come.set()
                except OSError:
                    return

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"ws://localhost:{listening.getsockname()[1]}", has_come
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for one in held:
                one.close()


def registered(home: Home, url: str, *names: str) -> None:
    for name in names:
        home.run("register", "-a", name, "-u", name, "-s", url).ok()


def sent(home: Home, sender: str, to: str, text: str) -> str:
    return str(home.run("send", "-a", sender, "--to", to, "-m", text, "--json").ok().objects()[0]["id"])


@pytest.mark.parametrize(
    "command",
    ["inbox", "inbox --peek", "wait --timeout 30", "read ID", "status SENT", "status SENT --offline", "ack ID",
     "users --all", "history", "contacts list", "contacts verify bobby", "contacts policy", "whoami", "retry"],
)  # fmt: skip
def test_what_looks_and_ends_loads_no_event_loop_and_nothing_that_it_does_not_use(command: str, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_relay(tmp_path / "relay") as relay:
        registered(home, relay.url, "alice", "bobby")
        ours, theirs = sent(home, "alice", "bobby", "one"), sent(home, "bobby", "alice", "two")
        home.run("inbox", "-a", "alice").ok()
        sent(home, "bobby", "alice", "three")
        words = [{"ID": theirs, "SENT": ours}.get(word, word) for word in command.split()]

        done = subprocess.run(
            [sys.executable, "-X", "importtime", BIN / "aimessage", *words, "-a", "alice"],
            env=os.environ | {"AIMESSAGE_HOME": str(home.path)}, capture_output=True, text=True, check=True,
        )  # fmt: skip

    names = [line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    before = subprocess.run([sys.executable, "-X", "importtime", "-c", "pass"], capture_output=True, text=True,
                            check=True)  # fmt: skip
    already = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in before.stderr.splitlines() if "|" in line}
    assert {name.split(".")[0] for name in names} & TOO_HEAVY <= already
    assert "aimessage" in {name.split(".")[0] for name in names}


def test_an_inbox_takes_in_what_waits_and_its_sender_hears_of_it(relay: Relay, home: Home) -> None:
    registered(home, relay.url, "inge", "jens")
    first, second = sent(home, "inge", "jens", "one"), sent(home, "inge", "jens", "two")

    page = home.run("inbox", "-a", "jens", "--json").ok().objects()

    assert [message["text"] for message in page[:-1]] == ["one", "two"]
    assert (page[-1]["count"], page[-1]["more_waiting"], page[-1]["trouble"]) == (2, False, None)
    for message_id in (first, second):
        assert home.run("status", "-a", "inge", message_id, "--json").ok().objects()[0]["state"] == "delivered"
    assert home.run("inbox", "-a", "jens", "--json").ok().objects()[0]["count"] == 0


def test_more_than_a_relay_delivers_at_once_is_taken_in_and_gone_from_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def send_all(url: str) -> None:
        async with connect(Settings(home.path, "alice", url)) as me, asyncio.TaskGroup() as group:
            for number in range(BACKLOG):
                group.create_task(me.send("bobby", f"number {number}"))

    with running_relay(tmp_path / "relay") as relay:
        registered(home, relay.url, "alice", "bobby")
        asyncio.run(send_all(relay.url))
        [message, *_] = home.run("inbox", "-a", "bobby", "--limit", "1", "--json").ok().objects()
        texts = [message["text"]]
    assert relay.process.wait() is not None
    whole = ("inbox", "-a", "bobby", "--limit", "1000", "--max-chars", "10000000", "--json")
    page = home.run(*whole).ok().objects()
    texts += [message["text"] for message in page[:-1]]
    assert page[-1]["trouble"] == "relay_unreachable"
    page = home.run(*whole).ok().objects()
    texts += [message["text"] for message in page[:-1]]
    assert texts == [f"number {number}" for number in range(BACKLOG)]


def test_beside_a_listen_an_inbox_shows_what_is_here_and_takes_nothing_from_it(relay: Relay, home: Home) -> None:
    registered(home, relay.url, "karl", "lena")
    listening = home.start("listen", "-a", "lena", "--json")
    try:
        sent(home, "karl", "lena", "for the listener")
        assert listening.stdout is not None
        assert b"for the listener" in listening.stdout.readline()
        assert home.run("inbox", "-a", "lena", "--json").ok().objects()[0]["count"] == 0
        sent(home, "karl", "lena", "for the listener too")
        assert b"for the listener too" in listening.stdout.readline()
    finally:
        listening.kill()
        listening.communicate()


def test_a_copy_of_a_vault_goes_on_as_another_one(relay: Relay, home: Home, elsewhere: Home) -> None:
    registered(home, relay.url, "mona", "nils")
    home.run("inbox", "-a", "mona").ok()
    shutil.copytree(home.path, elsewhere.path)
    home.run("inbox", "-a", "mona").ok()
    sent(home, "nils", "mona", "to both of you")

    page = elsewhere.run("inbox", "-a", "mona", "--json").ok()

    assert [message["text"] for message in page.objects()[:-1]] == ["to both of you"]
    assert "this vault is a copy" in page.talk


def test_a_relay_that_says_nothing_hides_nothing_that_is_here(relay: Relay, home: Home) -> None:
    registered(home, relay.url, "olga", "paul")
    sent(home, "olga", "paul", "here already")
    home.run("inbox", "-a", "paul", "--peek").ok()

    with silent_relay() as (url, _):
        page = home.run("inbox", "-a", "paul", "-s", url, "--json").ok().objects()
        assert page[0]["text"] == "here already"
        assert page[-1]["trouble"] is not None
        nothing = home.run("inbox", "-a", "paul", "-s", url, "--json")
        assert nothing.code != 0
        assert nothing.failure()["error"] in ("not_a_relay", "relay_unreachable")


@pytest.mark.parametrize("command", ["inbox", "users"])
def test_whoever_waits_for_a_silent_relay_can_be_interrupted(command: str, relay: Relay, home: Home) -> None:
    registered(home, relay.url, f"quinn-{command}")
    with silent_relay() as (url, has_come):
        waiting = home.start(command, "-a", f"quinn-{command}", "-s", url, AIMESSAGE_DEBUG="")
        assert has_come.wait(30)
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate()
    assert (waiting.returncode, out, err) == (130, b"", b"")


def test_a_wait_outlives_its_relay_and_gets_what_comes_after(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_relay(tmp_path / "relay") as relay:
        registered(home, relay.url, "alice", "bobby")
        waiting = home.start("wait", "-a", "bobby", "--timeout", "80s", "--json")
        while home.run("users", "-a", "alice", "--json").ok().objects() == []:
            assert waiting.poll() is None
        relay.stop()
    with running_relay(tmp_path / "relay", "--port", str(relay.port)):
        sent(home, "alice", "bobby", "after the restart")
        out, err = waiting.communicate(timeout=90)
    assert (waiting.returncode, err) == (0, b"")
    assert b"after the restart" in out


def test_an_interrupted_wait_has_taken_nothing(relay: Relay, home: Home) -> None:
    registered(home, relay.url, "rosa", "sven")
    waiting = home.start("wait", "-a", "sven", "--from", "nobody", "--timeout", "80s")
    while [user["username"] for user in home.run("users", "-a", "rosa", "--json").ok().objects()] != ["sven"]:
        assert waiting.poll() is None
    message_id = sent(home, "rosa", "sven", "for whoever comes next")
    while home.run("status", "-a", "rosa", message_id, "--json").ok().objects()[0]["state"] != "delivered":
        assert waiting.poll() is None
    waiting.send_signal(signal.SIGINT)
    assert (waiting.wait(timeout=30), *waiting.communicate()) == (130, b"", b"")

    [message, _] = home.run("inbox", "-a", "sven", "--json").ok().objects()

    assert (message["text"], message["redelivered"]) == ("for whoever comes next", False)


@pytest.mark.parametrize("timeout", ["0", "1ms", "20ms"])
def test_a_wait_without_time_is_no_trouble_and_shows_what_is_here(timeout: str, relay: Relay, home: Home) -> None:
    name = f"vera-{timeout}"
    registered(home, relay.url, name, f"walt-{timeout}")
    assert home.run("wait", "-a", name, "--timeout", timeout, "--json").failure()["error"] == "timed_out"
    sent(home, f"walt-{timeout}", name, "here")
    home.run("inbox", "-a", name, "--peek").ok()
    assert home.run("wait", "-a", name, "--timeout", timeout, "--json").ok().objects()[0]["text"] == "here"


def test_a_listen_takes_over_from_a_wait_which_still_sees_what_it_waits_for(relay: Relay, home: Home) -> None:
    registered(home, relay.url, "tina", "udo")
    waiting = home.start("wait", "-a", "udo", "--thread", "mine", "--timeout", "80s", "--json")
    while "udo" not in [user["username"] for user in home.run("users", "-a", "tina", "--json").ok().objects()]:
        assert waiting.poll() is None
    listening = home.start("listen", "-a", "udo", "--thread", "other", "--json")
    try:
        home.run("send", "-a", "tina", "--to", "udo", "-m", "to the listener", "--thread", "other").ok()
        assert listening.stdout is not None
        assert b"to the listener" in listening.stdout.readline()
        home.run("send", "-a", "tina", "--to", "udo", "-m", "to the waiter", "--thread", "mine").ok()
        out, _ = waiting.communicate(timeout=60)
        assert (waiting.returncode, b"to the waiter" in out) == (0, True)
    finally:
        listening.kill()
        listening.communicate()
