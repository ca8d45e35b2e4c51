"""What bad input gets: one sentence, a hint, its exit code, and nothing lost or half-written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from support.commands import Home, Outcome, Relay, running_relay


def refused(outcome: Outcome, error: str, code: int) -> dict[str, object]:
    failure = outcome.failure()
    assert (failure["error"], outcome.code, outcome.out) == (error, code, b""), outcome
    message, hint = failure["message"], failure["hint"]
    assert isinstance(message, str)
    assert "\n" not in message
    assert not message.endswith(".")
    assert message.startswith("U+") or message[:1] == message[:1].lower()
    assert isinstance(hint, str)
    assert hint
    assert isinstance(failure["retryable"], bool)
    assert "retry_after" in failure
    return failure


@pytest.fixture(scope="module")
def machine(relay: Relay, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    for name in ("alice", "bob"):
        home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
    return home


@contextmanager
def plain_web_server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"hi")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("body", "stdin", "error", "code"),
    [
        (["-m", "-"], b"\xff\xfe", "not_utf8", 2),
        (["-m", b"\xff"], b"", "not_utf8", 2),
        (["-m", "-"], b"", "message_empty", 2),
        (["-m", ""], b"", "message_empty", 2),
        ([], b"", "message_empty", 2),
        (["-m", "well done \U0001f600"], b"", "text_not_allowed", 2),
        (["-m", "\x1b[31m"], b"", "text_not_allowed", 2),
        (["-m", "-"], b"a" * 70_000, "too_large", 7),
        (["-m", "-"], b"a" * 65_536, "too_large", 7),
        (["--data", "{"], b"", "bad_value", 2),
        (["--file", "/nowhere/at/all"], b"", "bad_value", 2),
        (["-m", "x", "--data", "1"], b"", "bad_value", 2),
        (["-m", "x", "--ttl", "soon"], b"", "bad_value", 2),
        (["-m", "x", "--reply-to", "that one"], b"", "bad_value", 2),
        (["-m", "x", "--wobble"], b"", "invalid_input", 2),
    ],
)
def test_a_body_that_cannot_be_sent_is_refused_and_the_next_one_goes_through(
    body: list[str | bytes], stdin: bytes, error: str, code: int, machine: Home
) -> None:
    refused(machine.run("send", "--json", "-a", "alice", "-t", "bob", *body, stdin=stdin), error, code)

    machine.run("send", "-a", "alice", "-t", "bob", "-m", "still here").ok()
    got = machine.run("listen", "--json", "-a", "bob", "-C", "1", "-W", "30s").ok().objects()
    assert [message["text"] for message in got] == ["still here"]


def test_a_refused_character_is_named_with_its_place(machine: Home) -> None:
    failure = refused(
        machine.run("send", "--json", "-a", "alice", "-t", "bob", "-m", "ok \U0001f600"), "text_not_allowed", 2
    )

    assert "U+1F600" in str(failure["message"])
    assert "3" in str(failure["message"])


@pytest.mark.parametrize(
    ("recipient", "error", "code"),
    [("nobody-there", "recipient_unknown", 3), ("No Body!", "username_malformed", 2), ("", "username_malformed", 2)],
)
def test_a_recipient_that_does_not_exist(recipient: str, error: str, code: int, machine: Home) -> None:
    refused(machine.run("send", "--json", "-a", "alice", "-t", recipient, "-m", "x"), error, code)


def test_a_taken_username_leaves_no_identity_behind(machine: Home, relay: Relay, elsewhere: Home) -> None:
    refused(elsewhere.run("register", "--json", "-u", "alice", "-s", relay.url), "username_taken", 5)

    refused(elsewhere.run("whoami", "--json"), "no_identity", 4)
    elsewhere.run("register", "-u", "alice-two", "-s", relay.url).ok()


@pytest.mark.parametrize("name", ["a", "über", "Al Ice", "-dash", "x" * 33, "admin"])
def test_a_malformed_username_reaches_no_relay(name: str, elsewhere: Home) -> None:
    outcome = elsewhere.run("register", "--json", f"--username={name}", "-s", "ws://localhost:9")

    refused(outcome, "username_malformed", 2)


def test_an_identity_is_never_overwritten(machine: Home, relay: Relay) -> None:
    before = machine.run("token", "show", "-a", "alice").ok().text

    refused(machine.run("register", "--json", "-a", "alice", "-u", "alice3", "-s", relay.url), "identity_exists", 5)
    machine.run("register", "-a", "alice", "-u", "alice", "-s", relay.url, "--if-not-exists").ok()

    assert machine.run("token", "show", "-a", "alice").ok().text == before


def test_a_wrong_token_restores_nothing(machine: Home, relay: Relay, elsewhere: Home) -> None:
    theirs = machine.run("token", "show", "-a", "bob").ok().text.strip()
    arguments = ["restore", "--json", "-u", "alice", "-s", relay.url]

    refused(elsewhere.run(*arguments, AIMESSAGE_TOKEN=theirs), "proof_rejected", 4)
    refused(elsewhere.run(*arguments, AIMESSAGE_TOKEN=theirs[:-1]), "token_malformed", 4)
    refused(elsewhere.run(*arguments, stdin=b""), "token_malformed", 4)
    refused(elsewhere.run(*arguments, stdin=b"\xff"), "token_malformed", 4)

    refused(elsewhere.run("whoami", "--json"), "no_identity", 4)


@pytest.mark.parametrize("command", ["send", "listen", "users", "whoami", "token"])
def test_without_an_identity_nothing_works_and_register_is_the_hint(command: str, elsewhere: Home) -> None:
    arguments = {"send": ["send", "-t", "bob", "-m", "x"], "token": ["token", "show"]}.get(command, [command])

    failure = refused(elsewhere.run("--json", *arguments), "no_identity", 4)

    assert "aimessage register" in str(failure["hint"])


@pytest.mark.parametrize("server", ["localhost:8080", "ftp://localhost", "ws://", "ws://localhost:99999"])
def test_a_malformed_server_address(server: str, elsewhere: Home) -> None:
    refused(elsewhere.run("register", "--json", "-u", "nowhere", "-s", server), "bad_value", 2)


def test_something_else_at_the_address_is_not_a_relay(elsewhere: Home) -> None:
    with plain_web_server() as url:
        refused(elsewhere.run("register", "--json", "-u", "lost-agent", "-s", url), "not_a_relay", 1)


def test_registering_at_a_relay_that_is_down_is_temporary(elsewhere: Home) -> None:
    failure = refused(
        elsewhere.run("register", "--json", "-u", "patient", "-s", "ws://localhost:9"), "relay_unreachable", 75
    )

    assert failure["retryable"] is True


def test_a_message_that_found_no_relay_waits_in_the_outbox(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_relay(tmp_path / "relay") as relay:
        for name in ("alice", "bob"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        home.run("send", "-a", "alice", "-t", "bob", "-m", "first").ok()
    late = home.run("send", "--json", "-a", "alice", "-t", "bob", "-m", "second", "--timeout", "1s")
    failure = late.failure()
    assert (late.code, failure["retryable"]) == (75, True)
    with running_relay(tmp_path / "relay", "--port", str(relay.port)):
        home.run("send", "-a", "alice", "-t", "bob", "-m", "third").ok()
        got = home.run("listen", "--json", "-a", "bob", "-C", "3", "-W", "30s").ok().objects()

    assert [message["text"] for message in got] == ["first", "second", "third"]
    assert failure["id"] == got[1]["id"]


def test_another_relay_at_the_old_address_needs_a_human(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_relay(tmp_path / "one") as relay:
        home.run("register", "-u", "alice", "-s", relay.url).ok()
    with running_relay(tmp_path / "two", "--port", str(relay.port)):
        refused(home.run("users", "--json"), "relay_changed", 6)


def test_a_name_that_carries_another_key_needs_a_human(machine: Home) -> None:
    recipient = "bob~" + "a" * 52

    refused(machine.run("send", "--json", "-a", "alice", "-t", recipient, "-m", "x"), "peer_identity_changed", 6)


def test_a_vault_of_a_newer_version_is_left_alone(relay: Relay, elsewhere: Home) -> None:
    elsewhere.run("register", "-u", "futurist", "-s", relay.url).ok()
    (path,) = (elsewhere.path / "agents" / "default").glob("vault*.db")
    with closing(sqlite3.connect(path)) as vault:
        vault.execute("PRAGMA user_version = 9999")
    before = path.read_bytes()

    refused(elsewhere.run("users", "--json"), "vault_newer", 1)

    assert path.read_bytes() == before
