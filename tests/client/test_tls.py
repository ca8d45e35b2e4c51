"""wss://: only a certificate that verifies is spoken to, and each way in which one does not is named."""

import asyncio
import socket
import ssl
import warnings
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from aimessage.cli.failures import exit_code
from aimessage.client import Message, Settings, connect, register
from aimessage.client.dialling import Dialling
from aimessage.errors import AimessageError, BadValue, CertificateRefused, NotARelay, RelayUnreachable
from support.commands import Home, Outcome
from support.pipes import accepting, free
from support.relay import running_relay
from support.tls import Authority, tls_in_front, tls_server

DAY = timedelta(days=1)
HOSTS = ("localhost", "127.0.0.1")


def settings(tmp_path: Path, url: str, ca_file: Path | None, agent: str = "alice") -> Settings:
    return Settings(tmp_path / "home", agent, url, dialling=Dialling(ca_file))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def typed(home: Home, *arguments: str, **environ: str) -> Outcome:
    return await asyncio.to_thread(Home(home.path, home.environ | environ).run, *arguments)


async def refusal(tmp_path: Path, url: str, ca_file: Path | None) -> AimessageError:
    with pytest.raises(AimessageError) as caught:
        async with asyncio.timeout(60):
            await register(settings(tmp_path, url, ca_file), "alice")
    assert not list((tmp_path / "home").rglob("token"))
    return caught.value


@pytest.mark.parametrize("host", HOSTS)
async def test_agents_meet_at_a_relay_whose_authority_they_believe(
    tmp_path: Path, authority: Authority, host: str
) -> None:
    async with running_relay(tmp_path) as relay, tls_in_front(relay, authority.issue(host)) as port:
        alice, bobby = (
            settings(tmp_path, f"wss://{host}:{port}", authority.ca_file, name) for name in ("alice", "bobby")
        )
        for each in (alice, bobby):
            await register(each, each.agent)
        async with connect(alice) as me:
            assert (await me.send("bobby", "x" * 30_000)).state == "accepted"
        async with connect(bobby) as me:
            assert [len(message.text or "") for message in await me.wait()] == [30_000]


@pytest.mark.parametrize(
    ("hosts", "starts", "ends", "sentence"),
    [
        (HOSTS, -2 * DAY, -DAY, "has expired"),
        (HOSTS, DAY / 2, DAY, "is not valid yet"),
        (("relay.example", "127.0.0.2"), -DAY, DAY, "is for another host"),
    ],
)
@pytest.mark.parametrize("host", HOSTS)
async def test_a_certificate_that_does_not_verify_is_refused_by_what_is_wrong_with_it(
    tmp_path: Path,
    authority: Authority,
    host: str,
    hosts: tuple[str, ...],
    starts: timedelta,
    ends: timedelta,
    sentence: str,
) -> None:
    chain = authority.issue(*hosts, starts=starts, ends=ends)
    async with running_relay(tmp_path) as relay, tls_in_front(relay, chain) as port:
        error = await refusal(tmp_path, f"wss://{host}:{port}", authority.ca_file)
    assert isinstance(error, CertificateRefused)
    assert sentence in str(error)
    assert (error.retryable, exit_code(error)) == (False, 6)


@pytest.mark.parametrize("believed", ["the system's", "another"])
async def test_an_unknown_issuer_is_refused_with_the_flag_that_helps(
    tmp_path: Path, authority: Authority, believed: str
) -> None:
    other = Authority(tmp_path, "another").ca_file if believed == "another" else None
    async with running_relay(tmp_path) as relay, tls_in_front(relay, authority.issue(*HOSTS)) as port:
        error = await refusal(tmp_path, f"wss://localhost:{port}", other)
    assert isinstance(error, CertificateRefused)
    assert "unknown issuer" in str(error)
    assert "--ca-file" in str(error.hint)


async def test_commands_take_the_authority_from_flag_and_environment(tmp_path: Path, authority: Authority) -> None:
    home, other = Home(tmp_path / "home"), str(Authority(tmp_path, "another").ca_file)
    ours = str(authority.ca_file)
    async with running_relay(tmp_path) as relay, tls_in_front(relay, authority.issue(*HOSTS)) as port:
        server = f"wss://localhost:{port}"
        registered = await typed(home, "register", "-u", "alice", "--server", server, "--ca-file", ours, "--json")
        assert registered.ok().talk == ""
        unnamed = ["register", "-a", "bella", "-u", "bella", "-s", server, "--json"]
        (await typed(home, *unnamed, SSL_CERT_FILE=ours)).ok()
        believed: list[tuple[list[str], dict[str, str]]] = [
            (["--ca-file", ours, "users", "--all"], {}),
            (["users", "--all"], {"AIMESSAGE_CA_FILE": ours}),
            (["users", "--all", "--ca-file", ours], {"AIMESSAGE_CA_FILE": other}),
            (["users", "--all"], {}),  # remembered by register
            (["users", "--all", "-a", "bella"], {"SSL_CERT_FILE": ours}),
        ]
        for arguments, environ in believed:
            assert (await typed(home, *arguments, **environ)).ok().talk == ""
        refused: list[tuple[list[str], dict[str, str]]] = [
            (["users", "--json", "-a", "bella"], {"SSL_CERT_FILE": other, "SSL_CERT_DIR": "/nowhere"}),
            (["users", "--json", "--ca-file", other], {"SSL_CERT_FILE": ours}),
        ]
        for arguments, environ in refused:
            outcome = await typed(home, *arguments, **environ)
            assert (outcome.code, outcome.out) == (6, b"")
            failure = outcome.failure()
            assert (failure["error"], failure["retryable"]) == ("certificate_refused", False)


@pytest.mark.parametrize(
    "content", [None, b"", b"not PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
async def test_a_file_without_authorities_is_a_wrong_setting(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    error = await refusal(tmp_path, f"wss://localhost:{await free()}", path)
    assert isinstance(error, BadValue)
    assert str(path) in str(error)


async def test_a_listen_ends_when_the_certificate_has_become_a_bad_one(tmp_path: Path, authority: Authority) -> None:
    port = await free()
    async with running_relay(tmp_path) as relay:
        bobby = settings(tmp_path, f"wss://localhost:{port}", authority.ca_file, "bobby")
        async with tls_in_front(relay, authority.issue(*HOSTS), port=port):
            await register(bobby, "bobby")
            listening = asyncio.create_task(_heard_one(bobby))
            async with asyncio.timeout(60), connect(bobby) as me:
                while not await me.users():  # noqa: ASYNC110 - the relay has no such event
                    await asyncio.sleep(0.02)
            assert not listening.done()
        async with tls_in_front(relay, authority.issue(*HOSTS, starts=-2 * DAY, ends=-DAY), port=port):
            with pytest.raises(CertificateRefused, match="expired"):
                async with asyncio.timeout(60):
                    await listening


async def _heard_one(who: Settings) -> Message:
    async with connect(who) as me, aclosing(me.listen()) as messages:
        return await anext(messages)


async def test_what_does_not_speak_tls_is_no_relay_and_tls_where_none_is_expected_gives_no_answer(
    tmp_path: Path, authority: Authority
) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with accepting(plain) as port:
        error = await refusal(tmp_path, f"wss://localhost:{port}", authority.ca_file)
        assert isinstance(error, NotARelay) and "does not speak TLS" in str(error)
    async with running_relay(tmp_path) as relay, tls_in_front(relay, authority.issue(*HOSTS)) as port:
        error = await refusal(tmp_path, f"ws://127.0.0.1:{port}", None)
        assert isinstance(error, RelayUnreachable) and "without an answer" in str(error)


async def test_tls_below_1_2_is_not_spoken(tmp_path: Path, authority: Authority) -> None:
    old = tls_server(authority.issue(*HOSTS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_server(("127.0.0.1", 0)) as door:
        answering = asyncio.create_task(asyncio.to_thread(_shake_hands, door, old))  # asyncio's own sends no alert
        error = await refusal(tmp_path, f"wss://127.0.0.1:{door.getsockname()[1]}", authority.ca_file)
        assert "UNSUPPORTED_PROTOCOL" in await answering
    assert isinstance(error, NotARelay) and "TLS 1.2" in str(error)
    context = Dialling(authority.ca_file).route("wss://localhost").tls
    assert context is not None and context.minimum_version == ssl.TLSVersion.TLSv1_2


def _shake_hands(door: socket.socket, tls: ssl.SSLContext) -> str:
    door.settimeout(30)
    accepted, _ = door.accept()
    accepted.settimeout(30)
    with accepted:
        try:
            tls.wrap_socket(accepted, server_side=True).close()
        except ssl.SSLError as error:
            return str(error)
    return ""


def test_the_scheme_asks_for_tls_however_it_is_written() -> None:
    route = Dialling().route("WSS://relay.example")
    assert route.tls is not None and not route.is_readable


async def test_a_handshake_that_is_cut_is_only_a_relay_that_is_away(tmp_path: Path, authority: Authority) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with accepting(cut) as port:
        error = await refusal(tmp_path, f"wss://localhost:{port}", authority.ca_file)
    assert isinstance(error, RelayUnreachable) and error.retryable
    assert isinstance(await refusal(tmp_path, f"wss://localhost:{await free()}", authority.ca_file), RelayUnreachable)
