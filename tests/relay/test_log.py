"""What the log says of a connection: which one it is, and nothing about whose."""

import asyncio
import json
import re
from pathlib import Path

import structlog

from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.relay.service import serving
from aimessage.wire.frames import Accepted, ListUsers, Post, Refused
from support.commands import running_relay as started_relay
from support.relay import HOST, Peer, get, http, relay_config
from support.sockets import UPGRADE, dialled


def id_in(answer: bytes) -> str:
    found = re.search(rb"\r\nX-Request-Id: ([0-9a-f]{12})\r\n", answer)
    assert found is not None, answer
    return found[1].decode()


async def test_every_line_of_a_connection_has_its_id_and_no_line_has_anything_of_the_user(tmp_path: Path) -> None:
    with started_relay(tmp_path, "--log-format", "json", "--log-level", "debug") as relay:
        url = f"ws://{HOST}:{relay.port}"
        page = await http(url, get("/whatever-secret", method="BREW"))
        garbage = await http(url, b"\x00\r\n\r\n")
        async with dialled(url, request=get("/", *UPGRADE)) as (reader, writer):
            broken = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"\x82\x81" + bytes(4) + b"\x00")  # no array of frames
            async with asyncio.timeout(60):
                while await reader.read(4096):
                    pass
        async with Peer(url, "alice-the-user") as alice:
            await alice.register()
            alice.send(Post(alice.next_id(), "alice-the-user", system_entropy(16), 0, 0, 0, b"sealed-body"))
            await alice.expect(Accepted)
        async with Peer(url, "alice-the-user") as impostor:
            assert isinstance(await impostor.register(), Refused)
        relay.stop()
        lines = [json.loads(line) for line in relay.log_path.read_text().splitlines()]

    ours = [line for line in lines if "link" in line]
    told = {link: [line["event"] for line in ours if line["link"] == link] for link in {line["link"] for line in ours}}
    assert told[id_in(page)] == told[id_in(garbage)] == ["answered"]
    assert told[id_in(broken)] == ["answered", "link refused", "link over"]
    assert sorted(map(tuple, told.values())) == sorted([
        ("answered",), ("answered",), ("answered", "link refused", "link over"),
        ("answered", "logged in", "link over"), ("answered", "login refused", "link over"),
    ])  # fmt: skip
    assert {line["code"] for line in ours if line["event"] == "login refused"} == {"username_taken"}
    for secret in ("alice-the-user", "whatever-secret", "BREW", "sealed-body", HOST + '"'):
        assert secret not in json.dumps(ours)


async def test_what_goes_wrong_by_our_fault_names_the_connection(tmp_path: Path) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        async with (
            serving(relay_config(tmp_path), clock=SystemClock(), entropy=system_entropy) as service,
            Peer(f"ws://{HOST}:{service.port}", "alice") as alice,
        ):
            await alice.register()
            (link,) = service._links
            del service.desk._directory  # a bug as any other
            alice.send(ListUsers(alice.next_id()))
            await alice.ended()

    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert (line["event"], line["link"]) == ("link failed", link.guest.id)
    assert "AttributeError" in repr(line["exc_info"].exceptions)


async def test_a_quiet_relay_logs_nothing_of_a_connection(tmp_path: Path) -> None:
    with started_relay(tmp_path, "--log-format", "json") as relay:
        url = f"ws://{HOST}:{relay.port}"
        assert id_in(await http(url, get("/health"))) != id_in(await http(url, get("/health")))
        async with Peer(url, "alice") as alice:
            await alice.register()
        relay.stop()
        events = [json.loads(line)["event"] for line in relay.log_path.read_text().splitlines()]

    assert events == ["listening"]
