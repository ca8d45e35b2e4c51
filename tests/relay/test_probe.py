"""The health check of a container: `aimessage-server probe`, with the relay's own settings and nothing else."""

import socket
import subprocess
from pathlib import Path

from support.commands import BIN, Outcome, running_relay
from support.tls import Authority


def server_command(*words: str) -> Outcome:
    done = subprocess.run([BIN / "aimessage-server", *words], capture_output=True, check=False, timeout=60)
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_a_relay_that_is_well_is_told_in_its_own_words(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        well = server_command("--port", str(relay.port), "probe")
        ready = server_command("--port", str(relay.port), "probe", "--ready")

    assert well.ok().text == "/health: ok\n"
    assert ready.ok().text == "/ready: ready\n"


def test_a_relay_on_all_addresses_is_asked_on_loopback(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        probed = server_command("--log-format", "json", "--host", "0.0.0.0", "--port", str(relay.port), "probe")

    assert probed.ok().objects() == [{"event": "probe", "level": "info", "said": "/health: ok"}]


def test_a_relay_with_a_certificate_for_another_name_is_asked_through_tls(tmp_path: Path) -> None:
    chain = str(Authority(tmp_path).issue("relay.example"))
    pair = ("--tls-cert", chain, "--tls-key", chain)
    with running_relay(tmp_path / "relay", *pair) as relay:
        probed = server_command(*pair, "--port", str(relay.port), "probe")
        plain = server_command("--port", str(relay.port), "probe")

    probed.ok()
    assert plain.code == 1


def test_where_no_relay_is_the_answer_is_one_sentence_and_exit_code_1() -> None:
    with socket.socket() as taken:  # bound and not listening: nothing else gets the port, and nobody answers
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        probed = server_command("--log-format", "json", "--port", str(port), "probe")

    assert probed.code == 1
    assert probed.failure() == {
        "event": "probe", "level": "error", "said": f"/health on port {port}: connection refused",
    }  # fmt: skip


def test_a_server_that_accepts_and_says_nothing_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        probed = server_command("--port", str(port), "probe", "--timeout", "0.2")

    assert probed.code == 1
    assert probed.talk == f"/health on port {port}: no answer that a relay gives\n"
