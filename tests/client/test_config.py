"""Settings: a flag beats the environment, and nonsense is refused by name."""

from pathlib import Path

import pytest

from aimessage.client.config import load_settings
from aimessage.errors import BadValue


def test_a_flag_beats_the_environment() -> None:
    environ = {"AIMESSAGE_AGENT": "env", "AIMESSAGE_SERVER": "ws://env:1/", "AIMESSAGE_HOME": "/somewhere"}
    told = load_settings(environ, agent="flag", server="wss://flag")
    assert (told.agent, told.server, told.home) == ("flag", "wss://flag", Path("/somewhere"))
    assert (load_settings(environ).agent, load_settings(environ).server) == ("env", "ws://env:1")
    assert load_settings({}).agent == "default"


@pytest.mark.parametrize("agent", ["", "-a", "a b", "../up", "a" * 65, "ä"])
def test_malformed_agents_are_refused(agent: str) -> None:
    with pytest.raises(BadValue):
        load_settings({}, agent=agent)


@pytest.mark.parametrize(
    "server",
    [
        "localhost:8080",
        "http://a",
        "ws://",
        "ws://a:0",
        "ws://a:99999",
        "ws://a?x=1",
        "ws://a#b",
        "ws://me:pw@a",
        "ws://[",
        "ws://a b",
        "ws://a\r\nX-Header: b",
        "ws://a/b c",
        "ws://" + "a" * 64,
    ],
)
def test_addresses_that_name_no_relay_are_refused(server: str) -> None:
    with pytest.raises(BadValue):
        load_settings({}, server=server)


def test_the_authorities_are_named_by_flag_before_environment() -> None:
    environ = {"AIMESSAGE_CA_FILE": "/env.pem"}
    assert load_settings(environ, ca_file=Path("/flag.pem")).dialling.ca_file == Path("/flag.pem")
    assert load_settings(environ).dialling.ca_file == Path("/env.pem")
    assert load_settings({"AIMESSAGE_CA_FILE": ""}).dialling.ca_file is None


def test_secret_files_are_read_whole_or_refused(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b" secret\n")
    (tmp_path / "large").write_bytes(b"x" * 4097)
    told = load_settings({"AIMESSAGE_TOKEN": "from env"}, token_file=tmp_path / "good")
    assert told.token is not None and told.token.reveal == b"secret"
    for name in ("large", "missing"):
        with pytest.raises(BadValue):
            load_settings({}, passphrase_file=tmp_path / name)
