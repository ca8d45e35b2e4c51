"""Floods over real sockets: each limit refuses, tells when to come back, and lets everybody else through."""

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest

from aimessage.crypto.random import system_entropy
from aimessage.e2ee.prekeys import make_pairs
from aimessage.wire.frames import (
    Accepted,
    BundleAnswer,
    Bye,
    Done,
    FetchBundle,
    FetchState,
    ListUsers,
    Post,
    Proved,
    Refused,
    StockPairs,
    StoreState,
    Subscribed,
    UserRow,
    Users,
)
from aimessage.wire.limits import Limits
from support.relay import HOST, Peer, get, running_relay
from support.sockets import OTHER, UPGRADE, dialled, over, status_of, until_status


def post(peer: Peer, to: str, control: int = 0, sealed: bytes = b"sealed") -> Post:
    return Post(peer.next_id(), to, system_entropy(16), 0, control, 0, sealed)


async def test_a_flood_from_one_address_shuts_out_neither_another_nor_the_probes(tmp_path: Path) -> None:
    async with running_relay(tmp_path, rate_global="20") as url:
        flood = [await status_of(url) for _ in range(30)]
        others = [await status_of(url, OTHER) for _ in range(2)]
        probe = await status_of(url, request=get("/ready"))

    assert 429 in flood
    assert others == [404, 404]
    assert probe == 200


async def test_the_probes_have_a_rate_of_their_own(tmp_path: Path) -> None:
    async with running_relay(tmp_path, rate_probes="5") as url:
        assert 429 in [await status_of(url, request=get("/health")) for _ in range(10)]
        assert await status_of(url) == 404


@pytest.mark.parametrize(
    ("flag", "code"), [("connections_per_address", 429), ("connections", 503), ("unauthenticated", 503)]
)
async def test_one_socket_too_many_is_refused_and_let_in_when_another_goes(
    tmp_path: Path, flag: str, code: int
) -> None:
    async with running_relay(tmp_path, **{flag: "2"}) as url:
        async with dialled(url, request=get("/", *UPGRADE)) as (reader, _), dialled(url):
            await reader.readuntil(b"\r\n\r\n")
            await until_status(url, code)
            if code == 429:
                assert await status_of(url, OTHER) == 404
        await until_status(url, 404)


async def test_behind_a_trusted_proxy_the_forwarded_address_is_counted_and_nobody_else_may_forward(
    tmp_path: Path,
) -> None:
    def request(address: str) -> bytes:
        return get("/", *UPGRADE, f"X-Forwarded-For: 9.9.9.9, {address}")

    async with (
        running_relay(tmp_path, trusted_proxy=f"{HOST}/32", connections_per_address="1") as url,
        dialled(url, request=request("192.0.2.1")) as (reader, _),
    ):
        await reader.readuntil(b"\r\n\r\n")
        await until_status(url, 429, request("192.0.2.1"))
        assert await status_of(url, request=request("192.0.2.2")) == 101
        async with dialled(url, OTHER, request("192.0.2.3")) as (untrusted, _):
            await untrusted.readuntil(b"\r\n\r\n")
            assert await status_of(url, OTHER, request("192.0.2.4")) == 429


@pytest.mark.parametrize("request_bytes", [b"", b"GET / HTTP/1.1\r\n", get("/", *UPGRADE)])
async def test_who_does_not_log_in_in_time_is_closed(tmp_path: Path, request_bytes: bytes) -> None:
    async with (
        running_relay(tmp_path, login_seconds="0.3") as url,
        dialled(url, request=request_bytes) as (reader, _),
    ):
        await over(reader)


async def test_a_peer_that_answers_no_heartbeat_is_found(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, login_seconds="0", heartbeat_seconds="0.5") as url,
        dialled(url, request=get("/", *UPGRADE)) as (reader, _),
    ):
        await over(reader)


async def test_without_time_limits_a_link_stays(tmp_path: Path) -> None:
    off = {"login_seconds": "0", "heartbeat_seconds": "0", "stall_seconds": "0"}
    async with running_relay(tmp_path, **off) as url, Peer(url, "alice") as alice:
        assert isinstance(await alice.register(), Proved)


async def test_a_reader_that_stalls_is_cut_and_its_mailbox_keeps_everything(tmp_path: Path) -> None:
    async with running_relay(tmp_path, stall_seconds="0.3") as url, Peer(url, "bobby") as bobby:
        await bobby.register()
        async with Peer(url, "alice") as stalled:
            await stalled.register()
            stalled.send(StoreState(stalled.next_id(), 1, bytes(60_000)))
            await stalled.expect(Done)
            bobby.send(post(bobby, "alice"))
            await bobby.expect(Accepted)
            stalled.transport.underlying_transport.pause_reading()
            for _ in range(5):  # 18 MB of answers, more than the kernel takes for us
                stalled.send(*(FetchState(stalled.next_id()) for _ in range(60)))
            async with asyncio.timeout(60):
                rows = [UserRow("alice", True)]
                while UserRow("alice", True) in rows:
                    bobby.send(ListUsers(bobby.next_id()))
                    rows = (await bobby.expect(Users)).rows
        async with Peer(url, "alice", stalled.secret) as later:
            await later.login()
            answer = await later.subscribe()

    assert isinstance(answer, Subscribed)
    assert answer.waiting == 1


async def test_registrations_of_one_address_are_limited(tmp_path: Path) -> None:
    async with running_relay(tmp_path, registrations="2") as url:
        answers = []
        for name in ("alice", "bobby", "carol"):
            async with Peer(url, name) as peer:
                answers.append(await peer.register())

    assert [type(answer) for answer in answers] == [Proved, Proved, Refused]
    refusal = answers[2]
    assert isinstance(refusal, Refused)
    assert refusal.code == "rate_limited"
    assert 0 < refusal.retry_after <= 630


async def test_look_ups_and_posts_to_unknown_names_share_one_limit(tmp_path: Path) -> None:
    async with running_relay(tmp_path, lookups="3") as url, Peer(url, "alice") as alice:
        await alice.register()
        alice.send(FetchBundle(alice.next_id(), "alice"), FetchBundle(alice.next_id(), "nobody-here"))
        known, unknown = await alice.expect(BundleAnswer), await alice.expect(Refused)
        refusals = []
        for _ in range(2):
            alice.send(post(alice, "nobody-here"))
            refusals.append(await alice.expect(Refused))
        alice.send(FetchBundle(alice.next_id(), "alice"))
        last = await alice.expect(Refused)
        alice.send(post(alice, "alice"))
        await alice.expect(Accepted)

    assert known.bundle
    assert unknown.code == "recipient_unknown"
    assert [refusal.code for refusal in (*refusals, last)] == ["recipient_unknown", "rate_limited", "rate_limited"]
    assert 0 < last.retry_after <= 63


async def test_pairs_drained_too_fast_give_way_to_the_bundle_alone(tmp_path: Path) -> None:
    async with running_relay(tmp_path, pairs="1") as url, Peer(url, "alice") as alice:
        await alice.register()
        pairs = make_pairs(alice.account, vault_id=alice.vault_id, count=3, entropy=system_entropy)
        alice.send(StockPairs(alice.next_id(), [pair.encode() for pair, _ in pairs]))
        await alice.expect(Done)
        alice.send(*(FetchBundle(alice.next_id(), "alice") for _ in range(2)))
        first, second = await alice.expect(BundleAnswer), await alice.expect(BundleAnswer)

    assert first.pair
    assert (second.pair, bool(second.bundle)) == (b"", True)


async def test_receipts_do_not_count_as_requests(tmp_path: Path) -> None:
    async with running_relay(tmp_path, rate_connection="0.01") as url, Peer(url, "alice") as alice:
        await alice.register()
        alice.send(post(alice, "alice", control=1), post(alice, "alice"))
        assert len([await alice.expect(Accepted) for _ in range(2)]) == 2
        alice.send(post(alice, "alice"))
        assert (await alice.expect(Refused)).code == "rate_limited"


async def test_at_256_descriptors_a_flood_neither_ends_nor_cripples_the_relay(tmp_path: Path) -> None:
    off = ("--unauthenticated", "0", "--connections-per-address", "0", "--rate-global", "0")
    limited = ("/bin/sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", sys.executable, "-m", "aimessage.relay.app")
    relay = await asyncio.create_subprocess_exec(
        *limited, "--port", "0", "--db-path", str(tmp_path / "db"), "--log-format", "json", *off,
        env={**os.environ}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert relay.stdout is not None
        async with asyncio.timeout(60):
            banner = await relay.stdout.readline()
        url = banner.decode().split('"url": "')[1].split('"')[0]
        writers = [(await asyncio.open_connection(HOST, int(url.rsplit(":", 1)[1])))[1] for _ in range(400)]
        for writer in writers:
            writer.transport.abort()
        await until_status(url, 200, get("/ready"))
        async with Peer(url, "alice") as alice:
            assert isinstance(await alice.register(), Proved)
            alice.send(post(alice, "alice"))
            await alice.expect(Accepted)
            assert not [frame for frame in alice.frames if isinstance(frame, Bye)]
        assert relay.returncode is None
    finally:
        relay.terminate()
        await relay.wait()


async def test_above_the_look_up_limit_known_unknown_and_offline_names_are_answered_alike(tmp_path: Path) -> None:
    async with running_relay(tmp_path, lookups="2") as url, Peer(url, "alice") as alice, Peer(url, "online") as online:
        await online.register()
        async with Peer(url, "friend") as friend, Peer(url, "offline") as offline:
            await friend.register()
            await offline.register()
        await alice.register()
        friendly = [await answer_to(alice, "friend")]
        spent = [await answer_to(alice, name) for name in ("nobody-1", "nobody-2")]
        names = ("online", "offline", "nobody-1", "nobody-3")
        alike = [await answer_to(alice, name) for name in names]
        alice.send(*(FetchBundle(alice.next_id(), name) for name in names))
        alike += [await alice.expect(Refused) for _ in names]
        friendly.append(await answer_to(alice, "friend"))
        delivered = await mail_of(online)

    assert [type(answer) for answer in friendly] == [Accepted, Accepted]
    assert [getattr(answer, "code", "") for answer in spent] == ["recipient_unknown"] * 2
    assert {(type(answer), getattr(answer, "code", ""), getattr(answer, "message", "")) for answer in alike} == {
        (Refused, "rate_limited", "too many look-ups by this identity")
    }
    assert delivered == 0


async def test_in_one_lot_a_known_name_behind_the_limit_is_answered_like_an_unknown_one(tmp_path: Path) -> None:
    async with running_relay(tmp_path, lookups="1") as url, Peer(url, "alice") as alice:
        async with Peer(url, "bobby") as bobby:
            await bobby.register()
        await alice.register()
        names = ("nobody-1", "bobby", "nobody-2", "bobby")
        alice.send(*(post(alice, name) for name in names))
        answers: list[Accepted | Refused] = [await alice.expect(Accepted, Refused) for _ in names]
        answers.sort(key=lambda answer: answer.id)

    assert [getattr(answer, "code", "") for answer in answers] == ["recipient_unknown", *["rate_limited"] * 3]


async def answer_to(peer: Peer, name: str) -> Accepted | Refused:
    peer.send(post(peer, name))
    return await peer.expect(Accepted, Refused)


async def mail_of(peer: Peer) -> int:
    answer = await peer.subscribe()
    assert isinstance(answer, Subscribed)
    return answer.waiting


async def test_sizes_are_what_the_operator_has_set_and_are_announced(tmp_path: Path) -> None:
    flags = {"body_bytes": "2048", "message_bytes": "524288", "message_frames": "128"}
    async with running_relay(tmp_path, **flags) as url, Peer(url, "alice") as alice:
        limits = alice.welcome.limits
        await alice.register()
        answers = []
        for size in (limits.sealed_bytes, limits.sealed_bytes + 1):
            alice.send(post(alice, "alice", sealed=bytes(size)))
            answers.append(await alice.expect(Accepted, Refused))
        alice.send(*(ListUsers(alice.next_id()) for _ in range(128)))
        assert len([await alice.expect(Users) for _ in range(128)]) == 128
        alice.send(*(ListUsers(alice.next_id()) for _ in range(129)))
        await alice.ended()
        async with Peer(url, "alice", alice.secret) as again:
            await again.login()
            again.raw(bytes(limits.message_bytes + 1))
            await again.ended()

    assert (limits.sealed_bytes, limits.message_bytes, limits.frames_per_message) == (2048 + 8192, 524288, 128)
    assert [getattr(answer, "code", "") for answer in answers] == ["", "too_large"]
    assert (alice.close_code, again.close_code) == (1008, 1009)


async def test_sizes_that_are_switched_off_are_the_protocols_own(tmp_path: Path) -> None:
    off = {"body_bytes": "0", "message_bytes": "0", "message_frames": "0"}
    async with running_relay(tmp_path, **off) as url, Peer(url, "alice") as alice:
        assert alice.welcome.limits == msgspec.structs.replace(Limits(), requests_per_second=0.0, request_burst=1)
        await alice.register()
        alice.send(*(ListUsers(alice.next_id()) for _ in range(256)))
        assert len([await alice.expect(Users) for _ in range(256)]) == 256
