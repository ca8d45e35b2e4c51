"""nginx and Caddy in front of a relay, as deploy/ has them: what agents need passes, nobody forges an address.

    .venv/bin/python tests/endurance/reverse_proxies.py [nginx] [caddy]

Each binary that is installed runs its file from deploy/ on a free port, with a certificate of a throw-away authority;
changed are only names, ports and the certificate's place. Then agents speak through it over wss://, and sockets from
several addresses of loopback, each a client of its own to the relay, count against --connections-per-address.
"""

import argparse
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.relays import say
from support.commands import Home, Relay, running_relay
from support.tls import Authority

ROOT: Final = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS: Final = 20.0
PER_ADDRESS: Final = 3
ONE, OTHER, DIRECT = "127.0.0.2", "127.0.0.3", "127.0.0.4"  # Linux gives all of 127/8 to loopback
_UPGRADE: Final = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    *("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: aimessage.v1"),
)
Write = Callable[[Path, Path, int, int], list[str]]


@dataclass(frozen=True, slots=True)
class Front:
    """A proxy that runs; *tls* believes its authority."""

    port: int
    ca_file: Path
    tls: ssl.SSLContext

    def dial(self, source: str) -> socket.socket:
        """Return a TLS connection from the address *source*."""
        plain = socket.create_connection(("127.0.0.1", self.port), DEADLINE_SECONDS, (source, 0))
        return self.tls.wrap_socket(plain, server_hostname="localhost")


def nginx(directory: Path, chain: Path, port: int, relay_port: int) -> list[str]:
    """Write what nginx runs with and return its command."""
    site = changed(
        (ROOT / "deploy/nginx.conf").read_text(),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("    listen [::]:443 ssl;\n", ""),
        ("server_name relay.example;", "server_name localhost;"),
        ("/etc/letsencrypt/live/relay.example/fullchain.pem", str(chain)),
        ("/etc/letsencrypt/live/relay.example/privkey.pem", str(chain)),
        ("http://127.0.0.1:8080", f"http://127.0.0.1:{relay_port}"),
    )
    (directory / "site.conf").write_text(site)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/pid; error_log stderr;\n{'user root;' if os.geteuid() == 0 else ''}\n"
        f"events {{}}\nhttp {{ access_log off;\n{temporary}include {directory}/site.conf; }}\n"
    )
    return ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")]


def caddy(directory: Path, chain: Path, port: int, relay_port: int) -> list[str]:
    """Write what Caddy runs with and return its command."""
    site = changed(
        (ROOT / "deploy/Caddyfile").read_text(),
        ("{$RELAY_HOST:relay.example} {", f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {chain} {chain}"),
        ("{$RELAY:127.0.0.1:8080}", f"127.0.0.1:{relay_port}"),
    )
    ours = f"{{\n\tadmin off\n\tauto_https off\n\tstorage file_system {directory}\n}}\n"
    (directory / "Caddyfile").write_text(ours + site)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(directory / "Caddyfile")]


PROXIES: Final[dict[str, Write]] = {"nginx": nginx, "caddy": caddy}


def changed(text: str, *changes: tuple[str, str]) -> str:
    """Return *text* with each change made; a change that finds nothing means that the file of deploy/ is another."""
    for old, new in changes:
        assert old in text, f"deploy/ has no {old!r}"
        text = text.replace(old, new)
    return text


@contextmanager
def in_front(name: str, directory: Path, relay: Relay) -> Iterator[Front]:
    """Run the proxy *name* in front of *relay* until the context ends."""
    directory.mkdir()
    authority = Authority(directory)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = PROXIES[name](directory, authority.issue("localhost"), port, relay.port)
    front = Front(port, authority.ca_file, ssl.create_default_context(cafile=str(authority.ca_file)))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: answers(front, process, directory / "log"))
        yield front
    finally:
        process.terminate()
        process.wait(timeout=DEADLINE_SECONDS)


def answers(front: Front, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    """Whether the proxy has opened its port. Raises AssertionError: it ended."""
    assert process.poll() is None, log.read_text()
    with contextlib.suppress(ConnectionRefusedError), front.dial(ONE):
        return True
    return False


def until(condition: Callable[[], bool]) -> None:
    """Wait for *condition*. Raises AssertionError: it does not come true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)


def ask(link: socket.socket, path: str, *headers: str) -> int:
    """Send one request and return the status of its answer; the connection stays open."""
    link.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = link.recv(4096)
        assert piece, f"no answer: {head!r}"
        head += piece
    return int(head.split(b" ", 2)[1])


def agents_meet(front: Front, directory: Path) -> None:
    """Register two agents, send while one listens and while it does not, and read both."""
    home = Home(directory / "home", {"AIMESSAGE_CA_FILE": str(front.ca_file)})
    for name in ("alice", "bobby"):
        home.run("register", "-u", name, "--agent", name, "-s", f"wss://localhost:{front.port}").ok()
    with home.start("listen", "--agent", "bobby", "--count", "2", "--json") as listening:
        first = home.run("send", "--agent", "alice", "--to", "bobby", "-m", "x" * 60_000, "--wait-for", "delivered")
        assert first.code == 0, first
        home.run("send", "--agent", "alice", "--to", "bobby", "-m", "second").ok()
        out, err = listening.communicate(timeout=DEADLINE_SECONDS)
        assert (listening.returncode, len(out.splitlines())) == (0, 2), (out, err)
    home.run("send", "--agent", "bobby", "--to", "alice", "-m", "kept").ok()
    assert "kept" in home.run("listen", "--agent", "alice", "--count", "1").ok().text


def pages(front: Front) -> None:
    """What may be asked from outside is answered, and what may not is not."""
    for path, status in (("/health", 200), ("/ready", 200), ("/metrics", 404), ("/nothing", 404)):
        with front.dial(ONE) as link:
            assert ask(link, path) == status, path
    with front.dial(ONE) as link:
        assert ask(link, "/ws", *_UPGRADE, "Origin: https://elsewhere.example") == 403


def addresses(front: Front, relay: Relay) -> None:
    """Limits count the client that the proxy saw, whatever a header says; only the proxy's word counts at the relay."""
    with ExitStack() as held:

        def shake(link: socket.socket, *headers: str) -> int:
            return ask(held.enter_context(link), "/ws", *_UPGRADE, *headers)

        def directly() -> socket.socket:
            return socket.create_connection(("127.0.0.1", relay.port), DEADLINE_SECONDS, (DIRECT, 0))

        assert [shake(front.dial(ONE)) for _ in range(PER_ADDRESS)] == [101] * PER_ADDRESS
        assert shake(front.dial(ONE)) == 429, "the proxy hides its clients"
        assert shake(front.dial(ONE), "X-Forwarded-For: 127.0.0.77") == 429, "a client named another address"
        assert shake(front.dial(OTHER)) == 101, "one client's limit is another's"

        forged = [f"X-Forwarded-For: 127.0.0.{number}" for number in range(80, 80 + PER_ADDRESS + 1)]
        direct = [shake(directly(), header) for header in forged]
        assert direct == [101] * PER_ADDRESS + [429], f"a stranger was believed: {direct}"


def without_trust(name: str, directory: Path) -> None:
    """The control: a relay that trusts no proxy takes all its clients for one."""
    with ExitStack() as held:
        relay = held.enter_context(relay_behind(directory / "relay"))
        front = held.enter_context(in_front(name, directory / "front", relay))
        sources = (ONE, *(f"127.0.0.{number}" for number in range(20, 20 + PER_ADDRESS)))
        statuses = [ask(held.enter_context(front.dial(source)), "/ws", *_UPGRADE) for source in sources]
    assert statuses == [101] * PER_ADDRESS + [429], statuses


def relay_behind(directory: Path, *flags: str) -> contextlib.AbstractContextManager[Relay]:
    """A relay with a small limit for each address, which leaves sockets that never log in alone."""
    return running_relay(
        directory, "--connections-per-address", str(PER_ADDRESS), "--login-seconds", "0",
        "--public-host", "localhost", *flags,
    )  # fmt: skip


def try_proxy(name: str, directory: Path) -> None:
    """Everything that is promised of one proxy. Raises AssertionError."""
    with (
        relay_behind(directory / "relay", "--trusted-proxy", "127.0.0.1") as relay,
        in_front(name, directory / "front", relay) as front,
    ):
        pages(front)
        addresses(front, relay)
        agents_meet(front, directory)
    untrusted = directory / "untrusted"
    untrusted.mkdir()
    without_trust(name, untrusted)


def main() -> int:
    """Run those that are named, or all that are installed; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxies", nargs="*", choices=[*PROXIES, []], metavar="PROXY", help="nginx, caddy")
    names = parser.parse_args().proxies or list(PROXIES)
    tried = []
    for name in names:
        if shutil.which(name) is None:
            say(f"  {name}: skipped: it is not installed")
            continue
        with tempfile.TemporaryDirectory(prefix="aimessage-proxy-") as directory:
            try_proxy(name, Path(directory))
        say(f"  {name}: pages, addresses, forged addresses, wss:// both ways, and the control without trust")
        tried.append(name)
    say(f"reverse_proxies: {len(tried)} of {len(names)} tried, all as promised")
    return 0


if __name__ == "__main__":
    sys.exit(main())
