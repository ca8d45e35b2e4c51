"""What wakes an agent: a command or a POST for each message; tried again, given up, shown; nothing is interpreted."""

import asyncio
import base64
import json
import selectors
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from aimessage.cli.webhook import signature
from aimessage.client import Settings, connect
from support.commands import Home, Relay

KEY = b"0123456789abcdef0123456789abcdef"
METACHARACTERS = "`$(){}[]<>|&;*?!~#'\"\\\n\t =%^-"


@pytest.fixture
def names(relay: Relay, home: Home) -> tuple[str, str]:
    """Register a sender and a recipient that no other test has; return their names."""
    first, second = (f"{each}-{abs(hash(home.path)) % 10**9}" for each in ("alice", "bobby"))
    for name in (first, second):
        home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
    return first, second


def send(home: Home, names: tuple[str, str], *texts: str) -> None:
    """Send each text from the first to the second."""

    async def each() -> None:
        async with connect(Settings(home=home.path, agent=names[0])) as me:
            for text in texts:
                await me.send(names[1], text)

    asyncio.run(each())


@dataclass
class Endpoint:
    """A program that takes webhooks, answering with each of *statuses* in turn and then with 200."""

    url: str
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def endpoint(*statuses: int) -> Iterator[Endpoint]:
    """Run one on loopback."""

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            here.requests.append(({key.lower(): value for key, value in self.headers.items()}, body))
            self.send_response(here.statuses.pop(0) if here.statuses else 200)
            self.send_header("location", f"{here.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    here = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/hook", list(statuses))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_thousand_bodies_of_metacharacters_reach_a_command_as_they_are(
    home: Home, names: tuple[str, str], tmp_path: Path
) -> None:
    dice, bait = Random(31), tmp_path / "interpreted"
    traps = [f"$(touch {bait})", f"`touch {bait}`", f"; touch {bait} #", f"| touch {bait}", f"' && touch {bait} '"]
    texts = [
        "x" + dice.choice(traps) + "".join(dice.choices(METACHARACTERS, k=dice.randint(1, 60))) + "x"
        for _ in range(1000)
    ]
    kept = tmp_path / "kept"
    send(home, names, *texts)
    home.run("listen", "-a", names[1], "-C", "1000", "--exec", f"tee -a {shlex.quote(str(kept))}").ok()
    assert kept.read_bytes() == "".join(texts).encode()
    assert not bait.exists()


def test_two_handlers_that_answer_each_other_stop_and_say_why(
    home: Home, names: tuple[str, str], tmp_path: Path
) -> None:
    handler = tmp_path / "answer"
    handler.write_text(
        f"#!{sys.executable}\nimport os, subprocess, sys\n"
        "e = os.environ\n"
        "sys.exit(subprocess.run([sys.executable, '-c', 'from aimessage.cli import main; main()', 'send', '--to', "
        "e['AIMESSAGE_MESSAGE_FROM'], '--reply-to', e['AIMESSAGE_MESSAGE_ID'], '-m', 'thank you!'], "
        f"env=e | {{'PYTHONPATH': {':'.join(sys.path)!r}}}).returncode)\n"
    )
    handler.chmod(0o700)
    listens = [
        home.start("listen", "-a", name, "--json", "--exec", str(handler), "--exec-tries", "1") for name in names
    ]
    try:
        send(home, names, "hello")
        said = _first_line_with(listens, b"given up")
    finally:
        for each in listens:
            each.send_signal(signal.SIGINT)
        told = b"".join(b"".join(each.communicate(timeout=60)) for each in listens) + said
    assert b"this exchange has gone on for 16 replies" in told
    assert told.count(b'"text":"thank you!"') == 16


def _first_line_with(processes: "list[subprocess.Popen[bytes]]", words: bytes) -> bytes:
    """Return all that the processes say on stderr up to a line with *words*."""
    said = b""
    with selectors.DefaultSelector() as selector:
        for each in processes:
            assert each.stderr is not None
            selector.register(each.stderr, selectors.EVENT_READ, each.stderr)
        while words not in said:
            ready = selector.select(timeout=90)
            assert ready, said
            for key, _ in ready:
                said += key.data.readline()
    return said


def test_a_failure_is_tried_again_and_each_senders_order_is_kept(
    home: Home, names: tuple[str, str], tmp_path: Path
) -> None:
    handler, log = tmp_path / "handler", tmp_path / "log"
    handler.write_text(
        f'#!/bin/sh\ntext=$(cat)\necho "$text" >> {log}\ntest "$text" != one || test "$(grep -c one {log})" -ge 3\n'
    )
    handler.chmod(0o700)
    send(home, names, "one", "two", "three")
    command = ("listen", "-a", names[1], "--exec", str(handler), "--exec-jobs", "4", "--retry-delay", "10ms")
    home.run(*command[:-1], "1h", "-C", "3").ok()  # it ends while the first is to be tried again: the others wait
    assert log.read_text().split() == ["one"]
    listening = home.start(*command)
    try:
        deadline = time.monotonic() + 60
        while "three" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        listening.send_signal(signal.SIGINT)
        listening.communicate(timeout=60)
    assert log.read_text().split() == ["one", "one", "one", "two", "three"]


def test_jobs_of_several_senders_run_side_by_side_and_no_more_than_allowed(
    home: Home, names: tuple[str, str], relay: Relay, tmp_path: Path
) -> None:
    others = [f"{names[0]}-{at}" for at in range(3)]
    for other in others:
        home.run("register", "-a", other, "-u", other, "-s", relay.url).ok()
        send(home, (other, names[1]), "one", "two")
    handler, log = tmp_path / "handler", tmp_path / "log"
    # Each job waits until two run at once, or two have; a third would be counted.
    handler.write_text(
        f"""#!/bin/sh
touch {tmp_path}/running-$$
ls {tmp_path} | grep -c running- >> {log}.counts
while test "$(sort -n {log}.counts | tail -1)" -lt 2; do
    sleep 0.01
    ls {tmp_path} | grep -c running- >> {log}.counts
done
echo "$AIMESSAGE_MESSAGE_FROM $(cat)" >> {log}
rm {tmp_path}/running-$$
"""
    )
    handler.chmod(0o700)
    home.run("listen", "-a", names[1], "--exec", str(handler), "--exec-jobs", "2", "-C", "6", "-W", "90s").ok()
    done = log.read_text().splitlines()
    for other in others:
        assert [line for line in done if line.startswith(f"{other} ")] == [f"{other} one", f"{other} two"]
    assert max(map(int, (tmp_path / "log.counts").read_text().split())) == 2


def test_what_fails_for_ever_is_given_up_over_restarts_and_comes_back_on_request(
    home: Home, names: tuple[str, str]
) -> None:
    send(home, names, "unlucky")
    failing = ("listen", "-a", names[1], "-C", "1", "--exec", "false", "--exec-tries", "2")
    first = home.run(*failing).ok()
    assert "the next listen gets it again" in first.talk
    second = home.run(*failing).ok()
    assert "given up after 2 tries: the command exited with 1" in second.talk
    assert home.run("listen", "-a", names[1], "-W", "300ms").code == 124

    [dead] = home.run("retry", "-a", names[1], "--json").ok().objects()
    assert (dead["from"], dead["tries"], dead["trouble"]) == (names[0], 2, "the command exited with 1")
    home.run("retry", "-a", names[1], str(dead["id"])).ok()

    again = home.run("listen", "-a", names[1], "-C", "1", "--json", "--exec", "true").ok()
    assert [each["text"] for each in again.objects()] == ["unlucky"]
    assert home.run("retry", "-a", names[1], "--json").ok().objects() == []


def test_a_message_that_was_given_up_is_cleared_by_ack(home: Home, names: tuple[str, str]) -> None:
    send(home, names, "unlucky")
    home.run("listen", "-a", names[1], "-C", "1", "--exec", "false", "--exec-tries", "1").ok()
    [dead] = home.run("retry", "-a", names[1], "--json").ok().objects()
    home.run("ack", "-a", names[1], str(dead["id"])).ok()
    assert home.run("retry", "-a", names[1], "--json").ok().objects() == []


def test_a_webhook_gets_each_message_signed_and_past_any_proxy(
    home: Home, names: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(KEY)
    with endpoint() as there:
        send(home, names, "wake up")
        hook = ("--webhook", there.url, "--webhook-secret-file", str(tmp_path / "key"))
        nowhere = "http://127.0.0.1:9"
        home.run("listen", "-a", names[1], "-C", "1", *hook, http_proxy=nowhere, HTTP_PROXY=nowhere, no_proxy="ws").ok()
        [(headers, body)] = there.requests
    assert json.loads(body)["text"] == "wake up"
    assert headers["webhook-id"] == json.loads(body)["id"]
    signed = signature(KEY, headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    assert headers["webhook-signature"] == signed


def test_a_redirect_is_a_failure_and_is_not_followed(home: Home, names: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY)
    with endpoint(307, 500) as there:
        send(home, names, "wake up")
        hook = ("--webhook", there.url, "--webhook-secret-file", str(tmp_path / "key"), "--exec-tries", "2")
        first = home.run("listen", "-a", names[1], "-C", "1", *hook).ok()
        second = home.run("listen", "-a", names[1], "-C", "1", *hook).ok()
        assert len(there.requests) == 2
    assert "the webhook answered 307" in first.talk
    assert "given up after 2 tries: the webhook answered 500" in second.talk


@pytest.mark.parametrize(
    "url", ["http://192.0.2.7/x", "http://localhost.example/x", "http://127.0.0.1@192.0.2.7/x", "ftp://127.0.0.1/x"]
)
def test_a_webhook_elsewhere_is_refused(home: Home, names: tuple[str, str], tmp_path: Path, url: str) -> None:
    (tmp_path / "key").write_bytes(KEY)
    refused = home.run("listen", "-a", names[1], "--webhook", url, "--webhook-secret-file", str(tmp_path / "key"))
    assert refused.code == 2


def test_a_signature_is_that_of_the_standard() -> None:
    # The vector that the specification's reference libraries are tested with.
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
