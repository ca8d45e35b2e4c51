"""The canary test is as good as its ears."""

import asyncio

from support.wiretap import payloads, tapped

HEAD = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"


def test_masked_and_plain_frames_of_every_length_are_read() -> None:
    masked = bytes(byte ^ mask for byte, mask in zip(b"hello", b"\x01\x02\x03\x04\x01", strict=True))
    stream = HEAD + b"\x82\x85\x01\x02\x03\x04" + masked
    stream += b"\x82\x7e" + (300).to_bytes(2, "big") + b"b" * 300
    stream += b"\x82\x7f" + (70_000).to_bytes(8, "big") + b"c" * 70_000

    assert payloads(stream) == b"hello" + b"b" * 300 + b"c" * 70_000


def test_a_stream_without_a_head_has_no_frames() -> None:
    assert payloads(b"") == b""


async def test_both_directions_are_kept() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(4)).upper())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, tapped(server.sockets[0].getsockname()[1]) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
        writer.write(b"ping")
        assert await reader.read() == b"PING"
        writer.close()
        await writer.wait_closed()

    assert [bytes(stream) for stream in tap.streams] == [b"ping", b"PING"]
