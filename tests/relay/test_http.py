"""Plain HTTP on the relay's port, over real sockets."""

from pathlib import Path

import pytest

from support.relay import get, http, running_relay

HEALTH = b'{"status":"ok","service":"aimessage-server"}'
UPGRADE = (
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def test_health_answers_byte_for_byte_what_was_promised(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        head, _, body = (await http(url, get("/health"))).partition(b"\r\n\r\n")

    assert body == HEALTH
    assert status(head) == 200
    assert b"\r\nContent-Type: application/json\r\n" in head


async def test_ready_says_that_the_store_takes_writes(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        assert status(await http(url, get("/ready"))) == 200


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (get("/health", method="HEAD"), 200),
        (get("/health", version="1.0", host=()), 200),
        (get("/health", method="OPTIONS"), 204),
        (get("/health", method="POST"), 405),
        (get("/nothing"), 404),
        (get("/"), 426),
        (get("/health", host=()), 400),
        (get("/health", host=("Host: a", "Host: b")), 400),
        (b"nonsense\r\n\r\n", 400),
        (get("/ws", *UPGRADE[:2], "Sec-WebSocket-Version: 8", UPGRADE[3]), 426),
        (get("/ws", *UPGRADE, UPGRADE[3]), 400),
        (get("/ws", *UPGRADE[:3], "Sec-WebSocket-Key: short"), 400),
        (get("/ws", *UPGRADE, "Sec-WebSocket-Protocol: chat"), 400),
        (get("/health", "X: " + "a" * 20_000), 431),
    ],
)
async def test_each_probe_gets_its_status(tmp_path: Path, request_bytes: bytes, expected: int) -> None:
    async with running_relay(tmp_path) as url:
        assert status(await http(url, request_bytes)) == expected


async def test_head_carries_the_length_and_no_body(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        answer = await http(url, get("/health", method="HEAD"))

    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 44" in answer


@pytest.mark.parametrize(
    "origin", ["http://localhost", "https://localhost:3000", "http://127.0.0.1:1", "http://[::1]:9"]
)
async def test_a_page_of_this_machine_is_echoed(tmp_path: Path, origin: str) -> None:
    async with running_relay(tmp_path) as url:
        answer = await http(url, get("/health", f"Origin: {origin}"))

    assert status(answer) == 200
    assert f"Access-Control-Allow-Origin: {origin}\r\n".encode() in answer
    assert b"Vary: Origin\r\n" in answer


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://localhost:1@evil.example",
        "ftp://localhost",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/health", "/ws"])
async def test_any_other_origin_is_refused(tmp_path: Path, origin: str, path: str) -> None:
    async with running_relay(tmp_path) as url:
        assert status(await http(url, get(path, f"Origin: {origin}", *UPGRADE))) == 403


async def test_the_global_rate_answers_429_but_never_to_health(tmp_path: Path) -> None:
    async with running_relay(tmp_path, rate_global="3") as url:
        statuses = [status(await http(url, get("/nothing"))) for _ in range(6)]
        health = status(await http(url, get("/health")))

    assert statuses[:3] == [404, 404, 404]
    assert 429 in statuses
    assert health == 200
