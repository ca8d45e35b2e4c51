import json
import subprocess
import sys
from collections.abc import Mapping

import pytest
from click.testing import CliRunner

from aimessage import __version__
from aimessage.cli.app import cli, run
from aimessage.cli.failures import EXIT_HELP


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str], environ: Mapping[str, str]) -> tuple[int, object]:
    code = run(arguments, environ)
    return code, json.loads(capsys.readouterr().err)


def test_help_prints_the_exit_codes_and_all_commands() -> None:
    result = CliRunner().invoke(cli, ["--help"])

    assert EXIT_HELP in result.output
    ours = {
        "register",
        "send",
        "ask",
        "wait",
        "listen",
        "inbox",
        "read",
        "ack",
        "retry",
        "status",
        "history",
        "users",
        "contacts",
        "mcp",
        "whoami",
        "doctor",
        "up",
        "down",
        "schema",
        "skill",
        "completion",
        "restore",
        "token",
    }
    assert set(cli.commands) == ours
    for command in cli.commands:
        assert command in result.output


def test_without_a_command_the_help_appears() -> None:
    result = CliRunner().invoke(cli, [])

    assert result.exit_code == 0
    assert result.output == CliRunner().invoke(cli, ["--help"]).output


def test_the_version_is_the_packages() -> None:
    assert __version__ in CliRunner().invoke(cli, ["--version"]).output


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_each_command_explains_itself(command: str) -> None:
    assert CliRunner().invoke(cli, [command, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "send"],
        ["send", "--json", "--to"],
        ["listen", "--json", "-C", "0"],
        ["listen", "--json", "--wobble"],
        ["--json", "dance"],
        ["register", "--json"],
        ["token", "--json"],
        ["send", "--json", "-t", "bob", "-m", "x", "--wait-for", "fame"],
    ],
)
def test_a_usage_error_is_json_where_json_was_asked_for(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, shape = failure(arguments, capsys, {})

    assert code == 2
    assert isinstance(shape, dict)
    assert shape.keys() == {"error", "message", "hint", "retryable", "retry_after"}
    assert shape["error"] == "invalid_input"
    assert shape["hint"].startswith("aimessage")


def test_the_environment_may_ask_for_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, shape = failure(["send"], capsys, {"AIMESSAGE_OUTPUT": "json"})

    assert code == 2
    assert isinstance(shape, dict)


def test_an_unknown_output_format_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIMESSAGE_OUTPUT", "yaml")

    assert run(["whoami"], {}) == 2
    assert "AIMESSAGE_OUTPUT" in capsys.readouterr().err


def test_help_does_not_wait_for_the_client_to_load() -> None:
    program = "import sys, aimessage.cli; print([name for name in sys.modules if name in sys.argv[1:]])"
    heavy = ["asyncio", "ssl", "cryptography", "msgspec", "aimessage.client"]

    done = subprocess.run([sys.executable, "-c", program, *heavy], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
