"""The doctor finds what is wrong, says what to do, and exits accordingly."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aimessage.client import Settings, register
from aimessage.client.doctor import Check, examine
from aimessage.crypto.random import system_entropy
from aimessage.relay.service import serving
from support.commands import Home, Relay, running_relay
from support.relay import relay_config


def findings(home: Home, *arguments: str, code: int) -> dict[str, dict[str, object]]:
    outcome = home.run("doctor", "--json", *arguments)
    assert outcome.code == code, outcome
    *checks, last = outcome.objects()
    failures = [each for each in checks if each["state"] == "fail"]
    assert (last["type"], last["ok"], last["failures"]) == ("doctor", code == 0, len(failures))
    for each in failures:
        assert each["hint"], f"{each} says nothing of what to do"
    return {str(each["name"]): each for each in checks}


def test_a_healthy_agent_passes_every_check(relay: Relay, home: Home) -> None:
    home.run("register", "-u", "healthy", "-s", relay.url).ok()

    found = findings(home, code=0)

    named = {"crypto", "text", "extras", "identity", "files", "disk", "vault", "outbox", "inbox", "resident"}
    named |= {"relay", "tls", "clock", "login", "prekeys"}
    assert found.keys() == named
    assert {each["state"] for each in found.values()} == {"ok"}
    assert home.run("doctor").ok().text.count("\nok") == len(named) - 1


def test_without_an_identity_the_hint_is_register_and_the_relay_is_looked_at(relay: Relay, home: Home) -> None:
    found = findings(home, "--server", relay.url, code=1)

    assert "aimessage register" in str(found["identity"]["hint"])
    assert relay.url in str(found["identity"]["hint"])
    assert found["relay"]["state"] == "ok"


def test_a_file_that_others_can_read_fails(relay: Relay, home: Home) -> None:
    home.run("register", "-u", "careless", "-s", relay.url).ok()
    (home.path / "agents" / "default" / "token").chmod(0o644)

    assert "chmod" in str(findings(home, code=1)["files"]["hint"])


def test_a_damaged_vault_is_named(relay: Relay, home: Home) -> None:
    home.run("register", "-u", "damaged", "-s", relay.url).ok()
    path = home.path / "agents" / "default" / "vault.db"
    content = bytearray(path.read_bytes())
    content[4096:12288] = b"\xa5" * 8192
    path.write_bytes(content)
    for name in ("vault.db-wal", "vault.db-shm"):
        (path.parent / name).unlink(missing_ok=True)

    assert findings(home, code=1)["vault"]["state"] == "fail"


def test_a_relay_that_is_gone_and_what_waits_for_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running_relay(tmp_path / "relay") as relay:
        for name in ("alice", "bobby"):
            home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()
        home.run("send", "-a", "alice", "-t", "bobby", "-m", "first").ok()
    assert home.run("send", "-a", "alice", "-t", "bobby", "-m", "second", "--timeout", "1s").code == 75

    found = findings(home, "-a", "alice", code=1)

    assert (found["relay"]["state"], found["outbox"]["state"]) == ("fail", "warn")
    assert "1 messages" in str(found["outbox"]["message"])
    assert "login" not in found


def test_an_identity_that_is_received_for_elsewhere_is_told(relay: Relay, home: Home, elsewhere: Home) -> None:
    home.run("register", "-u", "moving", "-s", relay.url).ok()
    token = home.run("token", "show").ok().out
    elsewhere.run("restore", "-u", "moving", "-s", relay.url, stdin=token).ok()
    elsewhere.run("inbox").ok()

    assert findings(home, code=0)["prekeys"]["state"] == "warn"
    assert findings(elsewhere, code=0)["prekeys"]["state"] == "ok"


class _SlowClock:
    def now(self) -> datetime:
        return datetime.now(UTC) - timedelta(hours=2)

    def monotonic(self) -> float:
        return self.now().timestamp()


async def test_clocks_that_differ_are_told(tmp_path: Path) -> None:
    config = relay_config(tmp_path)
    async with serving(config, clock=_SlowClock(), entropy=system_entropy) as service:
        settings = Settings(home=tmp_path / "home", server=f"ws://127.0.0.1:{service.port}")
        await register(settings, "late-one")
        found: dict[str, Check] = {check.name: check async for check in examine(settings)}

    assert found["clock"].state == "warn"
    assert "7200 s" in found["clock"].message or "7199 s" in found["clock"].message


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed_without_any_shell(shell: str, home: Home) -> None:
    assert "_AIMESSAGE_COMPLETE" in home.run("completion", shell, PATH="/nowhere").ok().text


def test_bash_completes_commands_and_options_with_the_script(home: Home) -> None:
    words = home.run(_AIMESSAGE_COMPLETE="bash_complete", COMP_WORDS="aimessage in", COMP_CWORD="1").ok().text
    options = home.run(_AIMESSAGE_COMPLETE="bash_complete", COMP_WORDS="aimessage inbox --pe", COMP_CWORD="2").ok().text

    assert words.split() == ["plain,inbox"]
    assert options.split() == ["plain,--peek"]
