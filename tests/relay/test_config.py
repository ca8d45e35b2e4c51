"""The one configuration object."""

import pytest

from aimessage.errors import ConfigInvalid
from aimessage.relay.config import load_config, plain_host


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
