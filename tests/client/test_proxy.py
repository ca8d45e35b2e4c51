"""Proxies: who is dialled through one, who never is, what a refusal means, and that no password is told."""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from aimessage.cli.failures import exit_code
from aimessage.client import Settings, connect, load_settings, register
from aimessage.client.dialling import is_loopback
from aimessage.errors import AimessageError, ConfigInvalid, ProxyRefused, RelayUnreachable
from support.commands import Home, Outcome
from support.pipes import accepting, free
from support.proxies import proxy_to
from support.relay import running_relay
from support.tls import Authority, tls_in_front

PLAIN, SECURE = "ws://relay.example:8080", "wss://relay.example"
PASSWORD = "p%40ss:w%C3%B6rd"


def settings(tmp_path: Path, server: str, **environ: str) -> Settings:
    return load_settings({"AIMESSAGE_HOME": str(tmp_path / "home"), **environ}, agent="alice", server=server)


async def typed(home: Home, *arguments: str, **environ: str) -> Outcome:
    return await asyncio.to_thread(Home(home.path, home.environ | environ).run, *arguments)


async def refusal(tmp_path: Path, server: str, **environ: str) -> AimessageError:
    with pytest.raises(AimessageError) as caught:
        await register(settings(tmp_path, server, **environ), "alice")
    return caught.value


def chosen(server: str, **environ: str) -> str | None:
    proxy = load_settings(environ).dialling.route(server).proxy
    return proxy.name if proxy is not None else None


async def test_a_relay_with_tls_is_dialled_through_the_proxy_and_verified_by_its_own_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with (
        running_relay(tmp_path) as relay,
        tls_in_front(relay, authority.issue("relay.example")) as front,
        proxy_to(f"wss://127.0.0.1:{front}") as proxy,
    ):
        trust = {"AIMESSAGE_CA_FILE": str(authority.ca_file), "HTTPS_PROXY": proxy.url}
        alice = settings(tmp_path, SECURE, **trust)
        await register(alice, "alice")
        async with connect(alice) as me:
            assert [user.username for user in await me.users(everyone=True)] == ["alice"]
        assert set(proxy.asked) == {"relay.example:443"}
        other = await refusal(tmp_path / "other", "wss://other.example", **trust)
        assert "is for another host" in str(other)


async def test_a_relay_without_tls_is_dialled_through_the_lower_case_http_proxy(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as relay, proxy_to(relay) as proxy:
        alice = settings(tmp_path, PLAIN, http_proxy=proxy.url, HTTPS_PROXY="http://127.0.0.1:9")
        await register(alice, "alice")
        assert set(proxy.asked) == {"relay.example:8080"}


async def test_this_machine_is_never_dialled_through_a_proxy(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as relay, proxy_to(relay) as proxy:
        alice = settings(tmp_path, relay, http_proxy=proxy.url, ALL_PROXY=proxy.url)
        await register(alice, "alice")
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.255.1.2", True),
        ("[::1]", True),
        ("128.0.0.1", False),
        ("10.0.0.1", False),
        ("[::2]", False),
        ("0.0.0.0", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_loopback_is_what_its_address_says(host: str, is_ours: bool) -> None:
    assert is_loopback(f"ws://{host}:1") is is_ours
    assert (chosen(f"ws://{host}:1", all_proxy="http://p:3128") is None) is is_ours


@pytest.mark.parametrize(
    ("server", "environ", "proxy"),
    [
        (SECURE, {"HTTPS_PROXY": "http://up:1"}, "up:1"),
        ("WSS://Relay.Example", {"HTTPS_PROXY": "http://up:1", "http_proxy": "http://plain:1"}, "up:1"),
        (SECURE, {"HTTPS_PROXY": "http://up:1", "https_proxy": "http://low:1"}, "low:1"),
        (SECURE, {"HTTPS_PROXY": "http://up:1", "https_proxy": ""}, "up:1"),
        (SECURE, {"http_proxy": "http://low:1", "HTTP_PROXY": "http://up:1"}, None),
        (SECURE, {"ALL_PROXY": "http://all:1"}, "all:1"),
        (SECURE, {"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://up:1"}, "up:1"),
        (PLAIN, {"http_proxy": "http://low:1"}, "low:1"),
        (PLAIN, {"HTTP_PROXY": "http://up:1"}, None),
        (PLAIN, {"HTTPS_PROXY": "http://up:1", "https_proxy": "http://low:1"}, None),
        (PLAIN, {"all_proxy": "http://all:1"}, "all:1"),
        (PLAIN, {"http_proxy": "bare:3128"}, "bare:3128"),
        (PLAIN, {"http_proxy": "http://bare/"}, "bare:80"),
        (PLAIN, {"http_proxy": "http://me:pw@[fd00::1]:3128"}, "[fd00::1]:3128"),
        (SECURE, {}, None),
    ],
)
def test_the_proxy_is_the_one_that_curl_would_take(server: str, environ: dict[str, str], proxy: str | None) -> None:
    assert chosen(server, **environ) == proxy


@pytest.mark.parametrize(
    ("host", "no_proxy", "is_excepted"),
    [
        ("relay.example", "*", True),
        ("relay.example", "relay.example", True),
        ("relay.example", "RELAY.EXAMPLE", True),
        ("RELAY.example.", "relay.example", True),
        ("relay.example", "a.example, .example", True),
        ("relay.example", "a.example b.example relay.example", True),
        ("relay.example", "*.example", True),
        ("relay.example", "example:8080", True),
        ("relay.example", "relay.example:8081", False),
        ("relay.example", "ay.example", False),
        ("relay.example", "relay.example.org", False),
        ("relay.example", ".", False),
        ("relay.example", "", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3:8080", True),
        ("10.1.2.3", "11.0.0.0/8", False),
        ("10.1.2.3", "2.3", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]", "fd00::1", True),
        ("[fd00::1]", "[fd00::1]:8080", True),
        ("[fd00::1]", "[fd00::1]:1", False),
    ],
)
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_no_proxy_excepts_hosts_domains_addresses_and_networks(
    host: str, no_proxy: str, is_excepted: bool, variable: str
) -> None:
    environ = {"http_proxy": "http://p:3128", variable: no_proxy}
    assert (chosen(f"ws://{host}:8080", **environ) is None) is is_excepted


async def test_an_excepted_host_is_dialled_directly(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as relay, proxy_to(relay) as proxy:
        everywhere = relay.replace("127.0.0.1", "0.0.0.0")  # this machine, under an address that is not loopback
        through = settings(tmp_path, everywhere, http_proxy=proxy.url)
        await register(through, "alice")
        assert len(proxy.asked) == 1
        async with connect(settings(tmp_path, everywhere, http_proxy=proxy.url, NO_PROXY="0.0.0.0/24")) as me:
            await me.users()
        assert len(proxy.asked) == 1


async def test_a_proxy_is_given_the_account_in_its_address(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as relay, proxy_to(relay, account="me:p@ss:wörd") as proxy:
        url = f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"
        await register(settings(tmp_path, PLAIN, http_proxy=url), "alice")
        assert proxy.asked == ["relay.example:8080"]


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [(407, ProxyRefused, 5), (403, ProxyRefused, 5), (405, ProxyRefused, 5), (502, RelayUnreachable, 75)],
)
async def test_what_a_proxy_refuses_says_whether_asking_again_helps(
    tmp_path: Path, status: int, kind: type[AimessageError], code: int
) -> None:
    async with running_relay(tmp_path) as relay, proxy_to(relay, status=status) as proxy:
        url = f"http://me:{PASSWORD}@127.0.0.1:{proxy.port}"
        error = await refusal(tmp_path, SECURE, HTTPS_PROXY=url)
        assert type(error) is kind
        assert (exit_code(error), error.retryable) == (code, code == 75)
        assert f"127.0.0.1:{proxy.port}" in str(error)
        assert status == 407 or f"status {status}" in str(error)
        assert PASSWORD not in f"{error} {error.hint}"


async def test_a_proxy_that_is_away_or_no_proxy_is_temporary(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with accepting(silent) as port:
        hung_up = await refusal(tmp_path, SECURE, HTTPS_PROXY=f"http://127.0.0.1:{port}")
    away = await refusal(tmp_path, SECURE, HTTPS_PROXY=f"http://127.0.0.1:{await free()}")
    for error in (hung_up, away):
        assert isinstance(error, RelayUnreachable) and "the proxy 127.0.0.1:" in str(error)


@pytest.mark.parametrize(
    "url",
    ["socks5://me:secret@h:1", "https://me:secret@h:1", "http://", "http://me:secret@h:99999", "http://me:secret@[h",
     "http://me:secret@h h:1", "http://me:secret@hö:1"],
)  # fmt: skip
async def test_a_proxy_that_cannot_be_used_is_named_without_its_password_and_only_when_it_is_needed(
    tmp_path: Path, url: str
) -> None:
    error = await refusal(tmp_path, SECURE, HTTPS_PROXY=url)
    assert isinstance(error, ConfigInvalid)
    assert "secret" not in f"{error} {error.hint}"
    async with running_relay(tmp_path) as relay:
        await register(settings(tmp_path, relay, HTTPS_PROXY=url, http_proxy=url), "alice")


async def test_a_command_never_tells_the_proxys_password(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {"AIMESSAGE_DEBUG": "1", "PYTHONASYNCIODEBUG": "1"})
    async with running_relay(tmp_path) as relay, proxy_to(relay, account="me:topsecret") as proxy:
        for account, code in (("me:topsecret", 0), ("me:topsecretive", 5)):
            url = f"http://{account}@127.0.0.1:{proxy.port}"
            outcome = await typed(home, "register", "-u", "alice", "-a", f"a{code}", "-s", PLAIN, http_proxy=url)
            assert outcome.code == code, outcome
            assert b"topsecret" not in outcome.out + outcome.err
    assert "topsecret" not in repr(load_settings({"HTTPS_PROXY": "http://me:topsecret@p"}))


async def test_a_connection_that_others_can_read_is_told_once_a_command_on_stderr(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    async with running_relay(tmp_path) as relay, proxy_to(relay) as proxy:
        environ = {"http_proxy": proxy.url}
        registered = (await typed(home, "register", "-u", "alice", "-s", PLAIN, **environ)).ok()
        assert registered.talk.splitlines()[0].startswith(f"note: the connection to {PLAIN} is not encrypted")
        assert registered.talk.count("not encrypted") == 1 and "encrypted" not in registered.text
        token = (await typed(home, "token", "show", **environ)).ok()
        assert token.talk == ""
        sent = (await typed(home, "send", "--to", "alice2", "-m", "hi", "--json", **environ)).talk.splitlines()
        assert ["not encrypted" in json.loads(line).get("notice", "") for line in sent].count(True) == 1
        restored = await typed(
            Home(tmp_path / "elsewhere"),
            *("restore", "-u", "alice", "-s", PLAIN, "--json"),
            AIMESSAGE_TOKEN=token.text.strip(),
            **environ,
        )
        assert restored.ok().talk.count("not encrypted") == 1 and b"encrypted" not in restored.out


async def test_a_lost_and_found_link_is_not_told_again(tmp_path: Path) -> None:
    told: list[str] = []
    port = str(await free())
    flags = {"port": port, "store": "rocksdb", "db_path": str(tmp_path / "db")}
    async with proxy_to(f"ws://127.0.0.1:{port}") as proxy:
        alice = settings(tmp_path, PLAIN, http_proxy=proxy.url).telling(told.append)
        async with running_relay(tmp_path, **flags):
            await register(alice, "alice")
            listening = asyncio.create_task(_heard_one(alice))
            await _until(lambda: len(proxy.asked) == 2)
        async with running_relay(tmp_path, **flags):
            bobby = Settings(tmp_path / "home", "bobby", f"ws://127.0.0.1:{port}")
            await register(bobby, "bobby")
            async with connect(bobby) as me:
                await me.send("alice", "found")
            async with asyncio.timeout(60):
                assert await listening == "found"
    assert len(proxy.asked) > 2
    assert len(told) == 1


async def test_without_a_command_the_log_is_told_and_loopback_is_no_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aimessage")
    async with running_relay(tmp_path) as relay, proxy_to(relay) as proxy:
        await register(Settings(tmp_path / "home", "bobby", relay), "bobby")
        assert caplog.messages == []
        await register(settings(tmp_path, PLAIN, http_proxy=proxy.url), "alice")
        assert [message for message in caplog.messages if "not encrypted" in message] == caplog.messages != []


async def _heard_one(who: Settings) -> str | None:
    async with connect(who) as me, aclosing(me.listen()) as messages:
        return (await anext(messages)).text


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the proxy has no such event
            await asyncio.sleep(0.02)
