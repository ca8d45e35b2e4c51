"""The relay's own TLS, with a throw-away authority and real sockets."""

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from picows import ws_connect

from aimessage.e2ee.identity import Token, open_account
from aimessage.errors import ConfigInvalid
from aimessage.relay.tls import load_tls
from aimessage.types import Address, RelayId, SecretBytes, Username
from aimessage.wire.frames import Accepted, Deliver, FetchState, Post, Proved, StateAnswer, Welcome
from support.commands import Relay, running_relay
from support.relay import Peer, _Wire, get
from support.tls import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca_file))


class SecurePeer(Peer):
    """A peer whose link is inside TLS."""

    def __init__(self, relay: Relay, name: str, tls: ssl.SSLContext) -> None:
        super().__init__(f"wss://127.0.0.1:{relay.port}", name)
        self._tls = tls

    async def __aenter__(self) -> Self:
        self.transport, self.wire = await ws_connect(_Wire, self.url, ssl_context=self._tls, use_aiofastnet=False)
        self.welcome = await self.expect(Welcome)
        address = Address(RelayId(self.welcome.relay_id), Username(self.name))
        self.account = open_account(Token(SecretBytes(self.secret)), address)
        return self


@contextmanager
def relay_with(directory: Path, chain: Path, *flags: str) -> Iterator[tuple[Relay, Path]]:
    """Run a relay with a copy of *chain*, so that the copy can be replaced."""
    copy = directory / "relay.pem"
    shutil.copy(chain, copy)
    with running_relay(directory / "relay", "--tls-cert", str(copy), "--tls-key", str(copy), *flags) as relay:
        yield relay, copy


def handshake(relay: Relay, tls: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", relay.port), timeout=10)
    return tls.wrap_socket(plain, server_hostname="127.0.0.1")


def serial(relay: Relay, tls: ssl.SSLContext) -> int:
    """Return the serial number of the certificate that the relay shows now."""
    with handshake(relay, tls) as secure:
        certificate = secure.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


def serial_of(chain: Path) -> int:
    return x509.load_pem_x509_certificate(chain.read_bytes()).serial_number


async def logged(relay: Relay, words: str) -> None:
    """Wait until the relay's log says *words*."""
    async with asyncio.timeout(60):
        while True:
            if words in relay.log_path.read_text():
                return
            await asyncio.sleep(0.02)


async def works(peer: Peer) -> bool:
    peer.send(FetchState(peer.next_id()))
    return isinstance(await peer.expect(StateAnswer), StateAnswer)


async def test_mail_travels_inside_tls_and_the_banner_says_so(tmp_path: Path, authority: Authority) -> None:
    with relay_with(tmp_path, authority.issue("127.0.0.1")) as (relay, _):
        async with SecurePeer(relay, "alice", trusting(authority)) as alice:
            assert isinstance(await alice.register(), Proved)
            await alice.subscribe()
            body = os.urandom(60_000)
            alice.send(Post(alice.next_id(), "alice", bytes(16), 0, 0, 0, body))
            await alice.expect(Accepted)
            delivery = await alice.expect(Deliver)
        with handshake(relay, trusting(authority)) as secure:
            secure.sendall(get("/health"))
            answer = secure.recv(4096)
        log = relay.log_path.read_text()

    assert delivery.sealed == body
    assert answer.startswith(b"HTTP/1.1 200")
    assert f"listening on wss://127.0.0.1:{relay.port}" in log


async def test_a_new_certificate_is_shown_after_a_signal_and_no_link_is_lost(
    tmp_path: Path, authority: Authority
) -> None:
    old, new = authority.issue("127.0.0.1"), authority.issue("127.0.0.1")
    tls = trusting(authority)
    with relay_with(tmp_path, old) as (relay, copy):
        async with SecurePeer(relay, "alice", tls) as alice:
            await alice.register()
            before = serial(relay, tls)
            shutil.copy(new, copy)
            unasked = serial(relay, tls)
            relay.process.send_signal(signal.SIGHUP)
            await logged(relay, "the certificate was read again")
            after = serial(relay, tls)
            assert await works(alice)

    assert (before, unasked, after) == (serial_of(old), serial_of(old), serial_of(new))


async def test_a_bad_new_certificate_is_logged_and_the_old_one_stays(tmp_path: Path, authority: Authority) -> None:
    old = authority.issue("127.0.0.1")
    tls = trusting(authority)
    with relay_with(tmp_path, old, "--log-format", "json") as (relay, copy):
        copy.write_bytes(copy.read_bytes()[:400])
        relay.process.send_signal(signal.SIGHUP)
        await logged(relay, "the old certificate stays")
        shown = serial(relay, tls)
        line = json.loads(relay.log_path.read_text().splitlines()[-1])

    assert shown == serial_of(old)
    assert line["level"] == "error"
    assert "not a PEM certificate" in line["reason"]


async def test_a_signal_without_tls_changes_nothing(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        relay.process.send_signal(signal.SIGHUP)
        await logged(relay, "nothing to read again")
        assert b"ok" in relay.health()


def test_versions_below_1_2_are_refused(tmp_path: Path, authority: Authority) -> None:
    old = trusting(authority)
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    modern = trusting(authority)
    modern.maximum_version = ssl.TLSVersion.TLSv1_2
    with relay_with(tmp_path, authority.issue("127.0.0.1")) as (relay, _):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(relay, old)
        with handshake(relay, modern) as secure:
            assert secure.version() == "TLSv1.2"


def test_who_speaks_plainly_to_a_secure_relay_is_cut(tmp_path: Path, authority: Authority) -> None:
    with relay_with(tmp_path, authority.issue("127.0.0.1")) as (relay, _):
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as plain:
            plain.sendall(get("/health"))
            answer = plain.recv(4096)
        assert serial(relay, trusting(authority))

    assert b"HTTP" not in answer


def encrypted(chain: Path) -> Path:
    """Return a file with the key in *chain* under a passphrase."""
    key = serialization.load_pem_private_key(chain.read_bytes(), None)
    path = chain.with_suffix(".locked")
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    return path


def test_files_that_cannot_serve_are_refused_with_their_reason(tmp_path: Path, authority: Authority) -> None:
    good, other = authority.issue("127.0.0.1"), authority.issue("127.0.0.1")
    text = tmp_path / "text"
    text.write_text("nothing")
    cases = [
        (good, None, "--tls-cert needs --tls-key"),
        (None, good, "--tls-key needs --tls-cert"),
        (tmp_path / "gone", good, "--tls-cert: .*gone cannot be read: No such file"),
        (good, tmp_path / "gone", "--tls-key: .*gone cannot be read: No such file"),
        (good, tmp_path, "--tls-key: .* cannot be read: Is a directory"),
        (good, other, "the key is not the certificate's"),
        (text, good, "they are not a PEM certificate and its key"),
        (good, encrypted(good), "the key is encrypted"),
    ]
    for certificate, key, sentence in cases:
        with pytest.raises(ConfigInvalid, match=sentence):
            load_tls(certificate, key)
    assert load_tls(None, None) is None


def test_the_context_itself_allows_no_version_below_1_2_whatever_the_library_allows(
    tmp_path: Path, authority: Authority
) -> None:
    chain = authority.issue("127.0.0.1")
    tls = load_tls(chain, chain)

    assert tls is not None
    assert tls.context.minimum_version is ssl.TLSVersion.TLSv1_2
