"""`aimessage up`: sends go through it alike, and whatever becomes of it, each message arrives once."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aimessage.client.resident.calling import holder, look_for
from aimessage.client.resident.door import DOOR, answers, packed, unpacked
from support.commands import BIN, Home, Outcome, Relay, running_relay
from support.crashing import KILLED

TESTS = Path(__file__).parents[1]
NOBODY = 65534
MOST_COMMITS = 40


@pytest.fixture
def pair(relay: Relay, home: Home) -> Iterator[tuple[str, str]]:
    """Two agents of this test's own, without a resident yet; afterwards without one again."""
    stem = home.path.parent.name.replace("_", "-")[-20:]
    names = (f"a-{stem}".lower(), f"b-{stem}".lower())
    for name in names:
        home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
    yield names
    home.run("down", "-a", names[0]).ok()


def directory_of(home: Home, name: str) -> Path:
    return home.path / "agents" / name


def sent_by_resident(home: Home, name: str) -> int:
    seen = look_for(directory_of(home, name))
    assert seen is not None
    return seen.sent


def heard(home: Home, name: str, count: int) -> list[str]:
    """Return the texts that arrive; nothing comes behind them."""
    lines = home.run("listen", "-a", name, "-C", str(count), "-W", "60s", "--json").ok().objects()
    rest = home.run("inbox", "-a", name, "--json").ok().objects()
    assert [line for line in rest if line["type"] == "message"] == []
    return [str(line["text"]) for line in lines]


def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


def test_a_send_goes_through_the_resident_and_says_what_it_always_says(home: Home, pair: tuple[str, str]) -> None:
    alice, bobby = pair
    first = home.run("send", "-a", alice, "-t", bobby, "-m", "zero").ok()
    [up] = home.run("up", "-a", alice, "--json").ok().objects()
    assert (up["state"], up["was_up"]) == ("up", False)
    [again] = home.run("up", "-a", alice, "--json").ok().objects()
    assert (again["pid"], again["was_up"]) == (up["pid"], True)

    note = home.path / "note.txt"
    note.write_text("two")
    plain = home.run("send", "-a", alice, "-t", bobby, "-m", "one").ok()
    assert (plain.out, plain.err) == (first.out, b"")
    as_json = home.run("send", "-a", alice, "-t", bobby, "--file", str(note), "--thread", "t-1", "--json").ok()
    [shape] = as_json.objects()
    assert list(shape) == ["v", "type", "id", "to", "state"]
    home.run("send", "-a", alice, "-t", bobby, "-m", "-", "--fold", stdin="three \u00a9".encode()).ok()
    keyed = [home.run("send", "-a", alice, "-t", bobby, "-m", "four", "--idempotency-key", "k", "--json").ok()
             for _ in range(2)]  # fmt: skip
    assert keyed[0].out == keyed[1].out
    assert sent_by_resident(home, alice) == 5
    [known] = home.run("status", str(shape["id"]), "-a", alice, "--json").ok().objects()
    assert known["thread"] == "t-1"
    assert heard(home, bobby, 5) == ["zero", "one", "two", "three (c)", "four"]
    assert "resident: up (pid" in home.run("doctor", "-a", alice).ok().text

    [down] = home.run("down", "-a", alice, "--json").ok().objects()
    assert (down["state"], down["pid"], down["was_up"]) == ("down", None, True)
    assert not (directory_of(home, alice) / DOOR).exists()
    assert home.run("down", "-a", alice).ok().text == f"{alice} was not up\n"
    assert home.run("send", "-a", alice, "-t", bobby, "-m", "five").ok().out == first.out


def test_every_failure_is_told_as_without_it(relay: Relay, home: Home, pair: tuple[str, str]) -> None:
    alice, bobby = pair
    lines: list[tuple[str | bytes, ...]] = [
        ("-t", "nobody-here", "-m", "x"),
        ("-t", alice, "-m", "x"),
        ("-t", "Not A Name", "-m", "x"),
        ("-t", bobby, "-m", "wave \u00a9"),
        ("-t", bobby, "-m", " "),
        ("-t", bobby, "-m", b"\xff"),
        ("-t", bobby, "-m", "AKIA" + "IOSFODNN7EXAMPL2"),
        ("-t", bobby, "-m", "x", "--reply-to", "no-id"),
        ("-t", bobby, "--file", str(home.path / "absent")),
        ("-t", bobby, "-m", "x" * 70_000),
        ("-t", f"{bobby}~{'a' * 26}", "-m", "x"),
        ("-t", bobby, "-m", "x", "-s", "http://x"),
    ]

    def outcomes() -> list[Outcome]:
        return [home.run("send", "-a", alice, *line, *shape) for line in lines for shape in ((), ("--json",))]

    without = outcomes()
    home.run("up", "-a", alice).ok()
    assert outcomes() == without
    assert {each.code for each in without} >= {2, 3, 5, 7}


def test_a_send_loads_next_to_nothing_where_a_resident_is(home: Home, pair: tuple[str, str]) -> None:
    alice, bobby = pair
    home.run("up", "-a", alice).ok()
    command = "from aimessage.cli import main; main()"  # not the script: what that loads is its installer's choice
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", command, "send", "-a", alice, "-t", bobby, "-m", "hello"],
        env=os.environ | {"AIMESSAGE_HOME": str(home.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    nothing = subprocess.run([sys.executable, "-X", "importtime", "-c", "pass"], capture_output=True, text=True,
                             check=True)  # fmt: skip
    found, before = ({line.rsplit("|", 1)[1].strip() for line in each.stderr.splitlines() if "|" in line}
                     for each in (done, nothing))  # fmt: skip
    assert sent_by_resident(home, alice) == 1
    assert found - before == {
        *("aimessage", "aimessage.cli", "aimessage.cli.door", "aimessage.cli.octets", "aimessage.cli.quick"),
        *("aimessage.client", "aimessage.client.resident", "aimessage.client.resident.door", "_socket", "gc"),
    }


@pytest.mark.parametrize("edge", ["before", "after"])
def test_a_resident_killed_at_any_commit_loses_nothing_and_sends_nothing_twice(
    home: Home, pair: tuple[str, str], edge: str
) -> None:
    alice, bobby = pair
    texts: list[str] = []
    for number in range(MOST_COMMITS):
        process = subprocess.Popen(
            [sys.executable, "-m", "support.dying_resident", str(home.path), alice, str(number), edge],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": f"{TESTS.parent / 'src'}{os.pathsep}{TESTS}"},
        )
        assert process.stdout is not None
        process.stdout.readline()  # ready, or dead already
        texts.append(f"message {number}")
        outcome = home.run("send", "-a", alice, "-t", bobby, "-m", texts[-1])
        assert (outcome.code, outcome.out) == (0, f"Message sent to {bobby} (accepted)\n".encode()), outcome
        was_killed = process.poll() == KILLED
        process.kill()
        process.wait()
        process.stdout.close()
        if not was_killed:
            break
    assert 2 <= number < MOST_COMMITS - 1  # it was killed where it saved, and where it settled what the relay said
    assert heard(home, bobby, len(texts)) == texts


def test_twenty_sends_at_once_through_one_resident_arrive_once_each(home: Home, pair: tuple[str, str]) -> None:
    alice, bobby = pair
    home.run("up", "-a", alice).ok()
    sends = [home.start("send", "-a", alice, "-t", bobby, "-m", f"n{at}") for at in range(20)]
    for process in sends:
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, (out, err)
    assert sorted(heard(home, bobby, 20)) == sorted(f"n{at}" for at in range(20))
    assert sent_by_resident(home, alice) == 20


def test_a_resident_that_hangs_or_was_killed_is_not_waited_for(home: Home, pair: tuple[str, str]) -> None:
    alice, bobby = pair
    [up] = home.run("up", "-a", alice, "--json").ok().objects()
    pid = int(str(up["pid"]))
    os.kill(pid, signal.SIGSTOP)
    home.run("send", "-a", alice, "-t", bobby, "-m", "past the sleeper").ok()
    [told] = [
        line for line in home.run("doctor", "-a", alice, "--json").ok().objects() if line.get("name") == "resident"
    ]
    assert (told["state"], told["hint"]) == ("warn", f"kill -9 {pid}")
    os.kill(pid, signal.SIGCONT)  # now it reads what nobody waits for: the same message under the same id
    until(lambda: look_for(directory_of(home, alice)) is not None)
    os.kill(pid, signal.SIGSTOP)
    stuck = home.run("down", "-a", alice, "--json")
    assert (stuck.code, stuck.failure()["hint"]) == (75, f"kill -9 {pid}")
    os.kill(pid, signal.SIGKILL)
    home.run("send", "-a", alice, "-t", bobby, "-m", "past the dead").ok()
    assert "was killed" in home.run("doctor", "-a", alice).ok().text
    [up] = home.run("up", "-a", alice, "--json").ok().objects()
    assert up["was_up"] is False
    home.run("send", "-a", alice, "-t", bobby, "-m", "through the next").ok()
    assert sent_by_resident(home, alice) == 1
    assert heard(home, bobby, 3) == ["past the sleeper", "past the dead", "through the next"]


def test_it_stops_when_nobody_asks_and_when_the_agent_is_another(home: Home, pair: tuple[str, str]) -> None:
    alice, bobby = pair
    [over] = home.run("up", "-a", alice, "--idle", "1ms", "--json").ok().objects()
    assert over["state"] in ("up", "down")  # as it was when we looked
    until(lambda: holder(directory_of(home, alice)) is None)
    home.run("up", "-a", alice, "--idle", "300ms").ok()
    until(lambda: look_for(directory_of(home, alice)) is None)  # to be looked for does not keep it
    until(lambda: not (directory_of(home, alice) / DOOR).exists())

    home.run("up", "-a", alice).ok()
    profile = directory_of(home, alice) / "profile.json"
    shutil.copy(profile, profile.with_suffix(".new"))
    profile.with_suffix(".new").replace(profile)  # as a restored identity comes
    home.run("send", "-a", alice, "-t", bobby, "-m", "as the new one").ok()
    until(lambda: not (directory_of(home, alice) / DOOR).exists())
    assert heard(home, bobby, 1) == ["as the new one"]


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        (("-s", "ws://127.0.0.1:{port}"), {}),
        ((), {"AIMESSAGE_SERVER": "ws://127.0.0.1:{port}"}),
        ((), {"NO_PROXY": "example.org"}),
        ((), {"AIMESSAGE_CA_FILE": "/dev/null"}),
        ((), {"AIMESSAGE_DEBUG": "1"}),
    ],
)
def test_who_asks_for_another_way_than_the_residents_goes_itself(
    relay: Relay, home: Home, pair: tuple[str, str], flags: tuple[str, ...], environ: dict[str, str]
) -> None:
    alice, bobby = pair
    home.run("up", "-a", alice).ok()
    said = [each.format(port=relay.port) for each in flags]
    there = {name: value.format(port=relay.port) for name, value in environ.items()}
    home.run("send", "-a", alice, "-t", bobby, "-m", "by myself", *said, stdin=b"", **there).ok()
    assert sent_by_resident(home, alice) == 0
    assert heard(home, bobby, 1) == ["by myself"]


def test_a_resident_of_another_way_serves_those_alone_who_ask_for_that_way(
    relay: Relay, home: Home, pair: tuple[str, str]
) -> None:
    alice, bobby = pair
    other = f"ws://127.0.0.1:{relay.port}"
    home.run("up", "-a", alice, "-s", other).ok()
    home.run("send", "-a", alice, "-t", bobby, "-m", "as it is remembered").ok()
    assert sent_by_resident(home, alice) == 0
    home.run("send", "-a", alice, "-t", bobby, "-m", "as the resident goes", "-s", f"{other}/").ok()
    assert sent_by_resident(home, alice) == 1
    assert heard(home, bobby, 2) == ["as it is remembered", "as the resident goes"]


def test_a_resident_makes_nobody_look_online(relay: Relay, home: Home, pair: tuple[str, str]) -> None:
    alice, bobby = pair
    home.run("up", "-a", alice).ok()
    until(lambda: (seen := look_for(directory_of(home, alice))) is not None and seen.is_linked)
    with home.start("listen", "-a", bobby) as listening:
        until(lambda: bobby in home.run("users", "-a", alice).ok().text.split())
        assert alice not in home.run("users", "-a", bobby).ok().text.split()
        listening.terminate()


def test_what_waits_for_a_relay_leaves_when_it_is_back_and_only_once(tmp_path: Path, home: Home) -> None:
    with running_relay(tmp_path / "relay") as relay:
        for name in ("alice", "bobby"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        home.run("send", "-a", "alice", "-t", "bobby", "-m", "before").ok()
        home.run("up", "-a", "alice").ok()
        relay.stop()
        kept = home.run("send", "-a", "alice", "-t", "bobby", "-m", "kept", "--timeout", "1", "--json")
        assert (kept.code, kept.failure()["error"]) == (75, "relay_unreachable")
        interrupted = home.start("send", "-a", "alice", "-t", "bobby", "-m", "interrupted")
        until(lambda: "2 messages" in home.run("doctor", "-a", "alice").text)
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.communicate(timeout=60) == (b"", b"")
        assert interrupted.returncode == 130
        again = home.start("send", "-a", "alice", "-t", "bobby", "-m", "interrupted")
        with running_relay(tmp_path / "relay", "--port", str(relay.port)):
            out, err = again.communicate(timeout=60)
            assert (again.returncode, out) == (0, b"Message sent to bobby (accepted)\n"), err
            assert heard(home, "bobby", 3) == ["before", "kept", "interrupted"]
            home.run("down", "-a", "alice").ok()


def test_a_body_from_a_pipe_survives_the_way_through_a_restored_agent(
    relay: Relay, home: Home, elsewhere: Home
) -> None:
    for name in ("piper", "hearer"):
        home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
    token = home.run("token", "show", "-a", "piper").ok().text.strip()
    environ = {"AIMESSAGE_USERNAME": "piper", "AIMESSAGE_SERVER": relay.url, "AIMESSAGE_TOKEN": token}
    for text in ("once", "more"):  # restored by the first, and there for the second
        elsewhere.run("send", "-t", "hearer", "-m", "-", stdin=text.encode(), **environ).ok()
    assert heard(home, "hearer", 2) == ["once", "more"]


def test_a_long_path_to_the_agent_is_no_hindrance(relay: Relay, tmp_path: Path) -> None:
    home = Home(tmp_path / ("deep" * 25) / ("er" * 40))
    for name in ("deepest", "shallow"):
        home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
    home.run("up", "-a", "deepest").ok()
    home.run("send", "-a", "deepest", "-t", "shallow", "-m", "hello").ok()
    assert sent_by_resident(home, "deepest") == 1
    home.run("down", "-a", "deepest").ok()


def test_an_agent_that_cannot_be_opened_gets_no_resident(relay: Relay, home: Home, tmp_path: Path) -> None:
    assert home.run("up", "--json").failure()["error"] == "no_identity"
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse")
    home.run("register", "-u", "locked-up", "-s", relay.url, "--passphrase-file", str(passphrase)).ok()
    assert home.run("up", "--json").failure()["error"] == "passphrase_wrong"
    home.run("up", "--passphrase-file", str(passphrase)).ok()
    home.run("register", "-a", "other", "-u", "other-one", "-s", relay.url).ok()
    home.run("send", "-t", "other-one", "-m", "it has the passphrase, as ssh-agent would").ok()
    home.run("down").ok()


def test_nonsense_at_the_door_harms_nobody(home: Home, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bobby = pair
    home.run("up", "-a", alice).ok()
    directory = directory_of(home, alice)
    monkeypatch.chdir(directory)
    for nonsense in (b"", b"\x00", b"\xff\xff\xff\xff" + b"x" * 2000, packed({}), packed({"ask": b"send"}),
                     packed({"ask": b"dance"}), b"\x00\x00\x00\x03\x00\x00\x00"):  # fmt: skip
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(DOOR)
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
    home.run("send", "-a", alice, "-t", bobby, "-m", "still well").ok()
    assert sent_by_resident(home, alice) == 1
    assert (directory / DOOR).stat().st_mode & 0o777 == 0o600
    assert (directory / "resident.log").read_bytes() == b""


def as_nobody(work: Callable[[], int]) -> int:
    """Do *work* in a process of another user, which starts where we are, and return what it returned."""
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os._exit(work())
        finally:
            os._exit(100)
    return child


@pytest.mark.skipif(os.geteuid() != 0, reason="it needs root, to become another user")
def test_a_command_tells_nothing_to_another_user_who_sits_at_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(DOOR)

        def sit() -> int:
            door.listen(2)
            said = b""
            for _ in range(2):  # the trial, and the command
                connection, _ = door.accept()
                said += connection.recv(1000)
                connection.close()
            return len(said)

        child = as_nobody(sit)
        told: list[dict[str, bytes]] = []
        until(lambda: not is_refused(told, tmp_path))
        assert told == []
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # it heard nothing


def is_refused(told: list[dict[str, bytes]], directory: Path) -> bool:
    """Ask, and return whether nobody listened yet."""
    with socket.socket(socket.AF_UNIX) as trial:
        try:
            trial.connect(DOOR)
        except ConnectionRefusedError:
            return True
    told += answers(str(directory), {"ask": b"send", "body": b"secret"}, last_seconds=5)
    return False


@pytest.mark.skipif(os.geteuid() != 0, reason="it needs root, to become another user")
def test_another_user_at_the_door_is_told_nothing(
    home: Home, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, _ = pair
    home.run("up", "-a", alice).ok()
    directory = directory_of(home, alice)
    monkeypatch.chdir(directory)

    def ask() -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(DOOR)
            try:
                connection.sendall(packed({"ask": b"hello"}))
                return len(connection.recv(50))
            except ConnectionError:  # closed without having been listened to
                return 0

    assert ask() > 0
    (directory / DOOR).chmod(0o666)  # nothing of ours would ever do that
    directory.chmod(0o711)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(as_nobody(ask), 0)[1]) == 0
    finally:
        directory.chmod(0o700)


def test_who_closes_the_output_is_told_nothing_and_the_message_is_sent(home: Home, pair: tuple[str, str]) -> None:
    alice, bobby = pair
    home.run("up", "-a", alice).ok()
    for number, away in enumerate(("a resident", "none")):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [BIN / "aimessage", "send", "-a", alice, "-t", bobby, "-m", f"with {away}"],
            env=os.environ | {"AIMESSAGE_HOME": str(home.path)},
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, b""), number
        home.run("down", "-a", alice).ok()
    assert heard(home, bobby, 2) == ["with a resident", "with none"]


def test_the_words_of_the_door_come_back_as_they_were() -> None:
    words = {"a": b"", "body": bytes(range(256)), "\u00e4": b"x" * 70_000}
    assert unpacked(packed(words)[4:]) == words
    for broken in (b"\x00", b"\x00\x00\x00\x05abc", packed({"a": b"b"})[4:-5], json.dumps({}).encode()):
        with pytest.raises(ValueError):
            unpacked(broken)
