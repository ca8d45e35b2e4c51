"""The requirement's first page, typed as it stands (with the test's own port), and what every command adds to it."""

import re
import signal
from pathlib import Path

import pytest

from support.commands import Home, Outcome, Relay

FIELDS = {
    *("v", "type", "id", "cursor", "from", "from_fingerprint", "from_trust", "contact", "to", "room", "thread"),
    *("reply_to", "sent_at", "received_at", "expires_at", "kind", "text", "data", "attachments", "expects_reply"),
    *("hops", "redelivered", "content_trust", "flags", "truncated", "bytes", "more_waiting"),
}
NASTY = "$(rm -rf ~) `id` \"double\" 'single' \\ \\n ; | & > < * ? ~ # ! {a,b} %s\ttab\nsecond line \n"


def register(home: Home, relay: Relay, *names: str) -> None:
    for name in names:
        home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()


def received(home: Home, agent: str, count: int = 1) -> list[dict[str, object]]:
    return home.run("listen", "--json", "-a", agent, "-C", str(count), "-W", "30s").ok().objects()


def test_health_answers_as_promised(relay: Relay) -> None:
    assert relay.health() == b'{"status":"ok","service":"aimessage-server"}'


def test_the_four_commands_work_word_for_word(relay: Relay, home: Home, elsewhere: Home) -> None:
    elsewhere.run("register", "--username", "ai-agent-2", "--server", relay.url).ok()
    home.run("register", "--username", "ai-agent-1", "--server", relay.url).ok()
    with elsewhere.start("listen", "--server", relay.url) as listening:
        assert listening.stdout is not None
        sent = home.run("send", "--to", "ai-agent-2", "--message", "Hello from AI Agent 1", "--server", relay.url)
        line = listening.stdout.readline().decode()
        online = home.run("users", "--server", relay.url)
        listening.send_signal(signal.SIGINT)
        rest, talk = listening.communicate(timeout=30)

    assert sent == Outcome(0, b"Message sent to ai-agent-2 (accepted)\n", b"")
    assert re.fullmatch(r"\[\d\d:\d\d:\d\d\] ai-agent-1: Hello from AI Agent 1\n", line)
    assert "ai-agent-2" in online.ok().text.splitlines()
    assert (listening.returncode, rest, talk) == (130, b"", b"")


def test_a_message_waits_for_an_agent_that_is_offline(relay: Relay, home: Home) -> None:
    register(home, relay, "early", "sleeper")
    home.run("send", "-a", "early", "-t", "sleeper", "-m", "for later", "--thread", "t-7").ok()

    (message,) = received(home, "sleeper")

    assert set(message) == FIELDS
    assert (message["v"], message["type"], message["kind"], message["text"]) == (1, "message", "text", "for later")
    assert (message["from"], message["to"], message["thread"]) == ("early", "sleeper", "t-7")
    assert message["content_trust"] == "untrusted"
    assert message["bytes"] == len("for later")


def test_a_message_is_shown_once(relay: Relay, home: Home) -> None:
    register(home, relay, "once-a", "once-b")
    home.run("send", "-a", "once-a", "-t", "once-b", "-m", "once").ok()
    received(home, "once-b")

    again = home.run("listen", "--json", "-a", "once-b", "-W", "1s")

    assert (again.code, again.out) == (124, b"")
    assert again.failure()["error"] == "timed_out"


def test_several_agents_share_one_machine_by_flag_and_by_environment(relay: Relay, home: Home) -> None:
    register(home, relay, "planner", "worker-1", "worker-2")
    home.run("-a", "planner", "send", "-t", "worker-1", "-t", "worker-2", "-m", "go").ok()
    home.run("send", "-t", "planner", "-m", "done", AIMESSAGE_AGENT="worker-1").ok()

    assert received(home, "worker-1")[0]["text"] == "go"
    assert received(home, "worker-2")[0]["text"] == "go"
    assert received(home, "planner")[0]["from"] == "worker-1"


def test_each_recipient_gets_an_outcome_and_the_first_failure_is_the_exit_code(relay: Relay, home: Home) -> None:
    register(home, relay, "many-a", "many-b")

    outcome = home.run("send", "--json", "-a", "many-a", "-t", "nobody-there", "-t", "many-b", "-m", "hi")

    assert outcome.code == 3
    assert [(sent["to"], sent["state"]) for sent in outcome.objects()] == [("many-b", "accepted")]
    assert outcome.failure()["to"] == "nobody-there"


@pytest.mark.parametrize("source", ["stdin", "file", "argument"])
def test_a_text_arrives_byte_for_byte(source: str, relay: Relay, home: Home, tmp_path: Path) -> None:
    agent, peer = f"bytes-{source}", f"peer-{source}"
    register(home, relay, agent, peer)
    path = tmp_path / "body.txt"
    path.write_bytes(NASTY.encode())
    body = {"stdin": ["-m", "-"], "file": ["--file", str(path)], "argument": ["-m", NASTY]}[source]

    home.run("send", "-a", agent, "-t", peer, *body, stdin=NASTY.encode() if source == "stdin" else b"").ok()

    assert received(home, peer)[0]["text"] == NASTY


def test_data_travels_as_the_value_that_it_is(relay: Relay, home: Home) -> None:
    register(home, relay, "data-a", "data-b")
    home.run("send", "-a", "data-a", "-t", "data-b", "--data", '{"done": [1, null, "ü"]}').ok()

    (message,) = received(home, "data-b")

    assert (message["kind"], message["text"], message["data"]) == ("data", None, {"done": [1, None, "ü"]})


def test_a_reply_names_what_it_answers_and_counts_hops(relay: Relay, home: Home) -> None:
    register(home, relay, "reply-a", "reply-b")
    sent = home.run("send", "--json", "-a", "reply-a", "-t", "reply-b", "-m", "ping").ok().objects()[0]
    assert received(home, "reply-b")[0]["id"] == sent["id"]
    home.run("send", "-a", "reply-b", "-t", "reply-a", "-m", "pong", "--reply-to", str(sent["id"])).ok()

    (answer,) = received(home, "reply-a")

    assert answer["reply_to"] == sent["id"]


def test_users_lists_everybody_on_request(relay: Relay, home: Home) -> None:
    register(home, relay, "listed")

    everyone = home.run("users", "--all", "--json", "-a", "listed").ok().objects()

    assert "listed" in {user["username"] for user in everyone}
    assert {frozenset(user) for user in everyone} == {frozenset({"v", "type", "username", "online"})}


def test_a_message_from_another_sender_stays_unread(relay: Relay, home: Home) -> None:
    register(home, relay, "from-a", "from-b", "from-c")
    home.run("send", "-a", "from-a", "-t", "from-c", "-m", "first").ok()
    home.run("send", "-a", "from-b", "-t", "from-c", "-m", "second").ok()

    chosen = home.run("listen", "--json", "-a", "from-c", "--from", "from-b", "-C", "1", "-W", "30s").ok().objects()

    assert [message["text"] for message in chosen] == ["second"]
    assert [message["text"] for message in received(home, "from-c")] == ["first"]


def test_register_says_where_the_token_lies_and_never_prints_it(relay: Relay, home: Home) -> None:
    outcome = home.run("register", "-u", "secretive", "-s", relay.url).ok()
    token = home.run("token", "show").ok().text.strip()
    path = home.path / "agents" / "default"

    assert token.startswith("aim1-")
    assert b"aim1-" not in outcome.out + outcome.err
    assert str(path) in outcome.talk
    assert path.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.rglob("*") if file.is_file()} == {0o600}


@pytest.mark.parametrize("way", ["environment", "file", "stdin"])
def test_restore_brings_the_same_identity_to_another_machine(
    way: str, relay: Relay, home: Home, elsewhere: Home, tmp_path: Path
) -> None:
    name = f"moved-{way}"
    home.run("register", "-u", name, "-s", relay.url).ok()
    token = home.run("token", "show").ok().text.strip()
    path = tmp_path / "token"
    path.write_text(token + "\n")
    arguments = ["restore", "-u", name, "-s", relay.url]

    if way == "environment":
        elsewhere.run(*arguments, AIMESSAGE_TOKEN=token).ok()
    elif way == "file":
        elsewhere.run(*arguments, "--token-file", str(path)).ok()
    else:
        elsewhere.run(*arguments, stdin=token.encode() + b"\n").ok()

    here, there = (place.run("whoami", "--json").ok().objects()[0] for place in (home, elsewhere))
    assert here["fingerprint"] == there["fingerprint"]
    assert (there["username"], there["server"]) == (name, relay.url)


def test_a_dry_run_sends_nothing(relay: Relay, home: Home) -> None:
    register(home, relay, "dry")

    home.run("send", "--dry-run", "-a", "dry", "-t", "dry", "-m", "never").ok()

    assert home.run("listen", "-a", "dry", "-W", "1s").code == 124


def test_output_into_a_closed_pipe_is_quiet(relay: Relay, home: Home) -> None:
    register(home, relay, "piped")
    with home.start("users", "--all", "-a", "piped") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
