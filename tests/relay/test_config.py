"""The one configuration object."""

from pathlib import Path

import pytest

from aimessage.errors import ConfigInvalid
from aimessage.relay.config import defaults_file, load_config, plain_host
from aimessage.relay.limits import LIMITS


def test_the_defaults_are_the_promised_ones() -> None:
    config = load_config({}, {})

    assert (config.host, config.port, str(config.db_path)) == ("127.0.0.1", 8080, "data")
    assert (config.store, config.rate_global, config.rate_connection) == ("rocksdb", 100.0, 10.0)
    assert config.quotas.messages == 10_000


def test_a_flag_goes_before_the_environment_and_that_before_the_default() -> None:
    config = load_config({"port": "1"}, {"PORT": "2", "DB_PATH": "/somewhere", "LOG_FORMAT": "json"})

    assert (config.port, str(config.db_path), config.log_format) == (1, "/somewhere", "json")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("LOG_FORMAT", "xml"),
        ("RATE_LIMIT_GLOBAL", "nan"),
        ("RATE_LIMIT_GLOBAL", "inf"),
        ("RATE_LIMIT_CONNECTION", "-1"),
        ("MAILBOX_SENDER_SHARE", "1.5"),
        ("STORE", "oracle"),
        ("REGISTRATION", "maybe"),
        ("METRICS", "yes"),
        ("BODY_BYTES", "65537"),
        ("BODY_BYTES", "1"),
        ("WEBSOCKET_MESSAGE_BYTES", "65536"),
        ("WEBSOCKET_FRAMES", "257"),
        ("STORE", "http://127.0.0.1:4222"),
        ("STORE", "nats://"),
        ("NATS_REPLICAS", "2"),
        ("NATS_MONITOR", "127.0.0.1:8222"),
    ],
)
def test_nonsense_is_refused_and_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigInvalid, match=variable):
        load_config({}, {variable: value})


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        ("Relay.Example.", "relay.example"),
        ("relay.example:8080", "relay.example"),
        ("[::1]:8080", "::1"),
        ("::1", "::1"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_hosts_are_compared_in_one_form(raw: str, host: str) -> None:
    assert plain_host(raw) == host


def test_a_file_goes_before_the_default_and_after_all_else(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('port = 1\npairs = 2\nlookups = 3\ntrusted_proxy = ["10.0.0.0/8", "::1"]\n')

    config = load_config({"port": "4", "config": str(file)}, {"PAIRS_PER_10_MINUTES": "5"})

    assert (config.port, config.limits.pairs, config.limits.lookups) == (4, 5, 3)
    assert [str(network) for network in config.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert load_config({}, {"AIMESSAGE_SERVER_CONFIG": str(file)}).limits.lookups == 3


@pytest.mark.parametrize("text", ["prot = 1", "port = 'http'", "port =", "config = 'other'"])
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(text)

    with pytest.raises(ConfigInvalid, match="configuration file"):
        load_config({"config": str(file)}, {})


def test_the_printed_defaults_are_a_file_that_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    lines = defaults_file().splitlines()
    file.write_text("\n".join(line.removeprefix("# ") if " = " in line else line for line in lines))

    assert load_config({"config": str(file)}, {}) == load_config({}, {})


def test_every_limit_is_described() -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()

    for row in LIMITS:
        flag = "--" + row.name.replace("_", "-")
        assert f"| `{flag}` | `{row.variable}` | {row.default} | {row.help} |" in page


def test_nats_is_a_store_with_its_own_settings() -> None:
    flags = {"store": "nats://a:4222, tls://b:4222", "nats_creds": "creds", "nats_monitor": "http://a:8222,http://b"}
    nats = load_config(flags, {"NATS_REPLICAS": "5"}).nats

    assert nats.urls == ("nats://a:4222", "tls://b:4222")
    assert (nats.replicas, nats.credentials, nats.unsafe_durability) == (5, Path("creds"), False)
    assert nats.monitors == ("http://a:8222", "http://b")
    assert load_config({}, {}).nats.urls == ()


def test_a_password_in_the_address_of_nats_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load_config({"store": "nats://me:hunter2@a:4222"}, {})

    assert "hunter2" not in str(refused.value)
    assert "--nats-creds" in str(refused.value.hint)


def test_the_mark_of_the_embedded_store_is_refused_with_nats() -> None:
    with pytest.raises(ConfigInvalid, match="--paranoid-durability"):
        load_config({"store": "nats://a:4222", "paranoid_durability": "on"}, {})
