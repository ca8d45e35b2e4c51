"""What a caller in a shell relies on: hints that run as they stand, no question without a terminal, budgets kept."""

import os
import pty
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import aimessage
from aimessage.cli.app import cli
from aimessage.cli.render import Screen
from support.commands import BIN, Home, Relay, running_relay

ARGUMENTS = {
    "register": ["-u", "somebody"],
    "send": ["-t", "bob"],
    "ask": ["-t", "bob"],
    "wait": ["--timeout", "0"],
    "listen": ["-W", "0"],
    "read": ["a" * 26],
    "ack": ["a" * 26],
    "status": ["a" * 26],
    "completion": ["bash"],
    "token": ["show"],
}


def enrolled(home: Home, relay: Relay, *names: str) -> None:
    for name in names:
        home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()


def test_a_hint_repeats_the_agent_and_the_relay_that_were_named_and_can_be_run(relay: Relay, home: Home) -> None:
    enrolled(home, relay, "hinted")
    failed = home.run("send", "--json", "-a", "hinted", "--server", relay.url, "-t", "nobody-here", "-m", "x")

    hint = str(failed.failure()["hint"])
    assert hint == f"aimessage users --agent hinted --server {relay.url} --all"
    program, *arguments = shlex.split(hint)
    assert program == "aimessage"
    assert "hinted" in home.run(*arguments).ok().text


def test_without_an_identity_the_hint_names_the_relay_that_was_named(relay: Relay, home: Home) -> None:
    hint = str(home.run("users", "--json", "-a", "fresh", "-s", relay.url).failure()["hint"])

    assert hint == f"aimessage register --agent fresh --username NAME --server {relay.url}"
    home.run(*shlex.split(hint.replace("NAME", "fresh-one"))[1:]).ok()


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("aimessage users --all", "aimessage users --agent 'it'\"'\"'s me' --all"),
        ("aimessage send --help", "aimessage send --help"),
        (
            "run aimessage listen here to take over again",
            "run aimessage listen --agent 'it'\"'\"'s me' here to take over again",
        ),
        (
            "check that the relay runs: aimessage-server --port 8080",
            "check that the relay runs: aimessage-server --port 8080",
        ),
        ("pip install --upgrade aimessage", "pip install --upgrade aimessage"),
        (
            "use another name with --agent NAME, or pass --if-not-exists",
            "use another name with --agent NAME, or pass --if-not-exists",
        ),
    ],
)
def test_only_commands_of_ours_get_the_flags(hint: str, said: str) -> None:
    assert Screen(as_json=False, flags=(("--agent", "it's me"),)).hint(hint) == said


def test_registering_again_says_that_nothing_was_done(relay: Relay, home: Home) -> None:
    arguments = ["register", "-u", "again-me", "-s", relay.url, "--if-not-exists"]
    first, second = (home.run(*arguments).ok().text for _ in range(2))

    assert first.startswith("Registered again-me")
    assert second.startswith("Nothing to do: already registered")


@pytest.mark.parametrize("command", sorted(cli.commands))
@pytest.mark.parametrize("registered", [True, False])
def test_no_command_asks_anything_without_a_terminal_at_its_input(
    command: str, registered: bool, relay: Relay, home: Home
) -> None:
    if registered and command not in ("register", "restore"):
        home.run("register", "-u", f"quiet-{command}", "-s", relay.url).ok()
    ours, theirs = pty.openpty()  # output may be a terminal: only the input decides
    try:
        done = subprocess.run(
            [BIN / "aimessage", command, *ARGUMENTS.get(command, [])],
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=False,
            env=dict(os.environ) | {"AIMESSAGE_HOME": str(home.path), "AIMESSAGE_AGENT": "default"},
        )  # fmt: skip
    finally:
        os.close(theirs)
        os.close(ours)

    assert b"Aborted" not in done.stderr
    assert done.returncode in (0, 1, 2, 3, 4, 124), done


def test_wait_within_a_budget_leaves_the_rest_unread_and_unmarked(relay: Relay, home: Home) -> None:
    enrolled(home, relay, "thrifty", "chatty")
    for number in range(6):
        home.run("send", "-a", "chatty", "-t", "thrifty", "-m", "-", stdin=f"{number} {'x' * 3_000}".encode()).ok()

    seen: list[object] = []
    more = True
    while more:
        outcome = home.run("wait", "-a", "thrifty", "--json", "--max-chars", "2000").ok()
        assert len(outcome.text) + len(outcome.talk) <= 2_000
        *messages, last = outcome.objects()
        assert all(each["truncated"] and not each["redelivered"] for each in messages)
        seen += [str(each["text"])[0] for each in messages]
        more = bool(last["more_waiting"])

    assert seen == list("012345")


def test_reading_what_another_consumer_has_leaves_it_with_that_one(relay: Relay, home: Home) -> None:
    enrolled(home, relay, "holder", "giver")
    home.run("send", "-a", "giver", "-t", "holder", "-m", "look").ok()
    with home.start("listen", "-a", "holder", "--manual-ack", "--json") as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        (listed, _) = home.run("inbox", "-a", "holder", "--state", "all", "--json").ok().objects()
        home.run("read", "-a", "holder", str(listed["id"])).ok()
        listening.terminate()
    (again, _) = home.run("inbox", "-a", "holder", "--json").ok().objects()

    assert (again["text"], again["redelivered"]) == ("look", True)


def test_listen_since_a_cursor_shows_again_what_was_shown_behind_it_and_then_what_is_new(
    relay: Relay, home: Home
) -> None:
    enrolled(home, relay, "returner", "teller")

    def tell(*texts: str) -> None:
        for text in texts:
            home.run("send", "-a", "teller", "-t", "returner", "-m", text).ok()

    tell("one", "two", "three")
    first = home.run("listen", "-a", "returner", "-C", "3", "-W", "30s", "--json").ok().objects()
    tell("four")
    again = (
        home.run(*("listen", "-a", "returner", "-C", "3", "-W", "30s", "--json", "--since", str(first[0]["cursor"])))
        .ok()
        .objects()
    )
    short = home.run("listen", "-a", "returner", "-C", "1", "--json", "--since", "0").ok().objects()

    assert [(each["text"], each["redelivered"]) for each in again] == [("two", True), ("three", True), ("four", False)]
    assert [each["text"] for each in short] == ["one"]
    assert home.run("listen", "-a", "returner", "--since", "x").code == 2
    assert home.run("listen", "-a", "returner", "--since", "0", "--exec", "true").code == 2
    absent = home.run("listen", "-a", "returner", "-C", "1", "--exec", "./nothing-of-that-name")
    assert (absent.code, absent.out) == (2, b"")
    assert "not there" in absent.talk


NASTY = (
    "$(touch pwned)", "`touch pwned`", "${HOME}", "$HOME $0 $$ $? $!", "a; touch pwned", "a && touch pwned > pwned &",
    "'single'", '"double"', "it's \"both\" `and` $(more)", "back\\slash \\n \\t \\\\", "trailing backslash \\",
    "line one\nline two\n\n", "\n  leading and trailing  \n", "tab\tseparated\tvalues\n", "*.txt ? [a-z] {a,b} ~root",
    "--agent other -m injected", "-", "%s %d %n %%", "<!-- --> <<END\nEND\n", "#!/bin/sh\nexit 1\n",
)  # fmt: skip


def test_twenty_nasty_bodies_pass_by_stdin_by_file_and_into_a_handler_byte_for_byte(
    relay: Relay, home: Home, tmp_path: Path
) -> None:
    enrolled(home, relay, "writer", "handler")
    (box := tmp_path / "box").mkdir()
    sent: dict[str, bytes] = {}
    for number, text in enumerate(NASTY):
        (body := tmp_path / "body").write_text(text)
        by = ["-m", "-"] if number % 2 else ["--file", str(body)]
        arguments = ["send", "-a", "writer", "-t", "handler", "--json", *by]
        (told,) = home.run(*arguments, stdin=text.encode() if number % 2 else b"").ok().objects()
        sent[str(told["id"])] = text.encode()

    keep = shlex.join(["sh", "-c", 'cat >"$0/$AIMESSAGE_MESSAGE_ID"', str(box)])
    shown = home.run("listen", "-a", "handler", "--json", "-C", str(len(NASTY)), "-W", "60s", "--exec", keep).ok()

    assert {path.name: path.read_bytes() for path in box.iterdir()} == sent
    assert [str(each["text"]).encode() for each in shown.objects()] == list(sent.values())
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize(
    ("package", "program", "arguments", "extra"),
    [
        ("mcp", "aimessage.cli", ("mcp",), "aimessage[mcp]"),
        ("nats", "aimessage.relay.app", ("--store", "nats://127.0.0.1:4222"), "aimessage[nats]"),
    ],
)
def test_without_an_extra_the_error_names_it(
    tmp_path: Path, package: str, program: str, arguments: tuple[str, ...], extra: str
) -> None:
    # All that is installed here but that one package, as a plain installation has it.
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name.split("-")[0].split(".")[0] not in (package, f"{package}_py", "__editable__"):
            (tmp_path / entry.name).symlink_to(entry)
    path = os.pathsep.join([str(Path(aimessage.__file__).parents[1]), str(tmp_path)])
    script = f"import sys; from {program} import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": path, "HOME": str(tmp_path), "DB_PATH": str(tmp_path / "db")},
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert f"pip install '{extra}'" in done.stderr


def test_an_inbox_shows_what_is_here_while_the_relay_is_away_and_says_when_nothing_is(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_relay(tmp_path / "relay") as relay:
        enrolled(home, relay, "alice", "bobby")
        home.run("send", "-a", "alice", "-t", "bobby", "-m", "here already").ok()
        assert "here already" in home.run("inbox", "-a", "bobby", "--peek").ok().text
    assert "here already" in home.run("inbox", "-a", "bobby").ok().text
    empty = home.run("inbox", "-a", "bobby", "--json")
    assert (empty.code, empty.failure()["retryable"]) == (75, True)
