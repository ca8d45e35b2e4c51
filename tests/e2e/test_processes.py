"""One identity, many processes: as typed in several shells of one machine."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Home, running_relay


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Home]:
    """A machine with the agents alice and bobby, and a relay of its own."""
    with running_relay(tmp_path / "relay") as relay:
        home = Home(tmp_path / "home", {"AIMESSAGE_SERVER": relay.url})
        for name in ("alice", "bobby"):
            home.run("register", "-u", name, "-a", name).ok()
        yield home


def line_of(process: "subprocess.Popen[bytes]") -> dict[str, object]:
    """Return the next JSON object that the process prints."""
    assert process.stdout is not None
    shape = json.loads(process.stdout.readline())
    assert isinstance(shape, dict)
    return shape


def until_listening(machine: Home, agent: str, by: str) -> None:
    """Return once a listen of *agent* holds the subscription: what is sent to it is delivered."""
    machine.run("send", "-a", by, "-t", agent, "-m", "are you there", "--wait-for", "delivered").ok()


def test_a_new_listen_takes_over_and_the_older_one_is_told_so(machine: Home) -> None:
    older = machine.start("listen", "-a", "bobby", "--json")
    until_listening(machine, "bobby", "alice")
    assert line_of(older)["text"] == "are you there"
    newer = machine.start("listen", "-a", "bobby", "--json")
    _, err = older.communicate(timeout=60)
    assert older.returncode == 5
    assert json.loads(err)["error"] == "superseded"
    machine.run("send", "-a", "alice", "-t", "bobby", "-m", "to the newer one").ok()
    assert line_of(newer)["text"] == "to the newer one"
    newer.kill()
    newer.communicate()


def test_several_waits_and_a_listen_share_the_messages_and_no_message_goes_to_two(machine: Home) -> None:
    listener = machine.start("listen", "-a", "bobby", "--json", "-W", "5s")
    waiters = [machine.start("wait", "-a", "bobby", "--json", "--timeout", "5s") for _ in range(3)]
    texts = [f"task {number}" for number in range(12)]
    for text in texts:
        machine.run("send", "-a", "alice", "-t", "bobby", "-m", text).ok()
    heard: list[object] = []
    for process in (*waiters, listener):
        out, _ = process.communicate(timeout=90)
        heard += [json.loads(line)["text"] for line in out.splitlines()]
    # On a slow machine some may still wait when those have ended: none of them may have been shown.
    while len(heard) < len(texts):
        left = machine.run("wait", "-a", "bobby", "--json", "--timeout", "20s").ok()
        heard += [shape["text"] for shape in left.objects()]
    assert sorted(map(str, heard)) == sorted(texts)


def test_an_answer_goes_to_its_ask_and_not_to_the_listen_beside_it(machine: Home) -> None:
    listener = machine.start("listen", "-a", "alice", "--json")
    until_listening(machine, "alice", "bobby")
    asking = machine.start("ask", "-a", "alice", "--json", "-t", "bobby", "-m", "how many?", "--timeout", "60s")
    (question,) = machine.run("wait", "-a", "bobby", "--json").ok().objects()
    assert (question["text"], question["expects_reply"]) == ("how many?", True)
    machine.run("send", "-a", "bobby", "-t", "alice", "-m", "by the way").ok()
    machine.run("send", "-a", "bobby", "-t", "alice", "-m", "seven", "--reply-to", str(question["id"])).ok()
    out, err = asking.communicate(timeout=60)
    assert asking.returncode == 0, err
    assert json.loads(out)["text"] == "seven"
    machine.run("send", "-a", "bobby", "-t", "alice", "-m", "the end").ok()
    assert [line_of(listener)["text"] for _ in range(3)] == ["are you there", "by the way", "the end"]
    listener.kill()
    listener.communicate()


def test_a_killed_manual_consumer_loses_nothing_and_what_comes_again_says_so(machine: Home) -> None:
    sent = machine.run("send", "-a", "alice", "--json", "-t", "bobby", "-m", "dear").ok().objects()[0]
    consumer = machine.start("listen", "-a", "bobby", "--json", "--manual-ack")
    assert line_of(consumer)["redelivered"] is False
    consumer.kill()
    consumer.communicate()
    assert machine.run("status", "-a", "alice", "--json", str(sent["id"])).ok().objects()[0]["state"] == "accepted"
    consumer = machine.start("listen", "-a", "bobby", "--json", "--manual-ack")
    assert line_of(consumer)["redelivered"] is True
    machine.run("ack", "-a", "bobby", str(sent["id"])).ok()
    deadline = time.monotonic() + 60
    while machine.run("status", "-a", "alice", "--json", str(sent["id"])).ok().objects()[0]["state"] != "delivered":
        assert time.monotonic() < deadline
    consumer.kill()
    consumer.communicate()
    assert machine.run("wait", "-a", "bobby", "--timeout", "100ms").code == 124


def test_exec_acknowledges_on_success_and_tries_a_failure_again(machine: Home, tmp_path: Path) -> None:
    machine.run("send", "-a", "alice", "-t", "bobby", "-m", "-", stdin=b"`rm -rf x` $(id) 'quoted' \"twice\"\n").ok()
    failing = machine.run("listen", "-a", "bobby", "-C", "1", "--exec", "sh -c 'exit 3'")
    assert failing.code == 0 and "exited with 3" in failing.talk
    kept = tmp_path / "kept"
    again = machine.run(
        "listen", "-a", "bobby", "--json", "-C", "1", "--exec", f"sh -c 'cat > {kept}; env >> {kept}.env'"
    ).ok()
    assert again.objects()[0]["redelivered"] is True
    assert kept.read_bytes() == b"`rm -rf x` $(id) 'quoted' \"twice\"\n"
    environment = kept.with_suffix(".env").read_text()
    assert "AIMESSAGE_MESSAGE_FROM=alice" in environment and "AIMESSAGE_TOKEN" not in environment
    assert machine.run("wait", "-a", "bobby", "--timeout", "100ms").code == 124


def test_history_and_status_speak_of_what_was_said(machine: Home) -> None:
    sent = machine.run("send", "-a", "alice", "--json", "-t", "bobby", "-m", "hello", "--thread", "t").ok().objects()[0]
    assert machine.run("wait", "-a", "bobby").ok().text.endswith("alice: hello\n")
    machine.run("send", "-a", "bobby", "-t", "alice", "-m", "hello yourself").ok()
    assert machine.run("status", "-a", "alice", str(sent["id"])).ok().text.startswith(f"{sent['id']} to bobby: deliv")
    machine.run("wait", "-a", "alice").ok()
    mine, theirs = machine.run("history", "-a", "alice", "--json", "--with", "bobby").ok().objects()
    assert (mine["type"], mine["state"], mine["thread"]) == ("sent", "delivered", "t")
    assert (theirs["type"], theirs["text"]) == ("message", "hello yourself")
    missing = machine.run("status", "-a", "alice", "--json", "a" * 26)
    assert (missing.code, missing.failure()["error"]) == (3, "message_unknown")
    assert machine.run("ack", "-a", "alice", "--json", "nonsense").code == 2
