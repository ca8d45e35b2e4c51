"""Links against a real relay: login, mail, pairs, limits."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from aimessage.crypto.random import system_entropy
from aimessage.e2ee.prekeys import make_pairs
from aimessage.wire.frames import (
    Accepted,
    Ack,
    Acknowledge,
    BundleAnswer,
    Bye,
    CaughtUp,
    Deliver,
    Done,
    FetchBundle,
    FetchState,
    ListUsers,
    PairsLow,
    Post,
    Proved,
    Publish,
    Refused,
    StateAnswer,
    StockPairs,
    StoreState,
    Subscribed,
    UserRow,
    Users,
)
from aimessage.wire.limits import SEALED_BYTES
from support.relay import Peer, running_relay


def post(peer: Peer, to: str, sealed: bytes = b"sealed", message_id: bytes | None = None) -> Post:
    return Post(peer.next_id(), to, message_id or system_entropy(16), 0, 0, 0, sealed)


async def test_a_name_belongs_to_its_first_key(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        async with Peer(url, "alice") as alice:
            assert isinstance(await alice.register(), Proved)
        async with Peer(url, "alice") as mallory:
            refusal = await mallory.register()
        async with Peer(url, "alice", alice.secret) as again:
            assert isinstance(await again.register(), Proved)

    assert isinstance(refusal, Refused)
    assert (refusal.id, refusal.code) == (0, "username_taken")


async def test_a_wrong_key_and_an_unknown_name_look_alike(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        async with Peer(url, "alice") as alice:
            await alice.register()
        async with Peer(url, "alice") as mallory, Peer(url, "nobody-here") as nobody:
            answers = [await mallory.login(), await nobody.login()]
        async with Peer(url, "alice", alice.secret) as again:
            assert isinstance(await again.login(), Proved)
        async with Peer(url, "alice", alice.secret) as spoilt:
            answers.append(await spoilt.login(spoil=True))

    assert isinstance(answers[0], Refused)
    assert answers[0].code == "proof_rejected"
    assert answers[1:] == answers[:1] * 2


async def test_a_proof_for_another_host_is_refused(tmp_path: Path) -> None:
    async with running_relay(tmp_path, public_host="relay.example") as url:
        async with Peer(url, "alice") as alice:
            refusal = await alice.register(host="evil.example")
        async with Peer(url, "alice") as alice:
            assert isinstance(await alice.register(host="relay.example"), Proved)

    assert isinstance(refusal, Refused)
    assert refusal.code == "host_refused"


async def test_mail_comes_live_and_to_who_was_away(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice:
        await alice.register()
        async with Peer(url, "bobby") as bobby:
            await bobby.register()
        alice.send(post(alice, "bobby", b"while away"))
        await alice.expect(Accepted)

        async with Peer(url, "bobby", bobby.secret) as bobby:
            await bobby.login()
            subscribed = await bobby.subscribe()
            first = await bobby.expect(Deliver)
            await bobby.expect(CaughtUp)
            alice.send(post(alice, "bobby", b"live"))
            second = await bobby.expect(Deliver)
            bobby.send(
                Acknowledge(first.subscription, [Ack(d.position, d.message_id) for d in (first, second)]),
                ListUsers(bobby.next_id()),
            )
            await bobby.expect(Users)
        async with Peer(url, "bobby", bobby.secret) as later:
            await later.login()
            empty = await later.subscribe()

    assert isinstance(subscribed, Subscribed)
    assert subscribed.waiting == 1
    assert (first.sender, first.sealed, second.sealed) == ("alice", b"while away", b"live")
    assert isinstance(empty, Subscribed)
    assert empty.waiting == 0


async def test_a_thousand_waiting_messages_come_in_order_through_the_window(tmp_path: Path) -> None:
    body = bytes(8_000)
    async with running_relay(tmp_path, mailbox_sender_share="0") as url, Peer(url, "alice") as alice:
        await alice.register()
        for _ in range(10):
            alice.send(*(post(alice, "alice", body) for _ in range(100)))
        for _ in range(1_000):
            await alice.expect(Accepted)
        await alice.subscribe()
        positions: list[int] = []
        while len(positions) < 1_000:
            delivery = await alice.expect(Deliver)
            positions.append(delivery.position)
            alice.send(Acknowledge(delivery.subscription, [Ack(delivery.position, delivery.message_id)]))
        await alice.expect(CaughtUp)

    assert positions == sorted(set(positions))


async def test_without_acknowledgements_the_window_closes(tmp_path: Path) -> None:
    async with running_relay(tmp_path, mailbox_sender_share="0") as url, Peer(url, "alice") as alice:
        await alice.register()
        for _ in range(4):
            alice.send(*(post(alice, "alice", bytes(60_000)) for _ in range(10)))
        for _ in range(40):
            await alice.expect(Accepted)
        await alice.subscribe()
        alice.send(ListUsers(alice.next_id()))
        await alice.expect(Users)
        got = [await alice.expect(Deliver) for _ in range(17)]
        alice.send(ListUsers(alice.next_id()))
        await alice.expect(Users)
        waiting = [frame for frame in alice.frames if isinstance(frame, Deliver | CaughtUp)]

    assert sum(len(delivery.sealed) for delivery in got) <= 1 << 20
    assert len(waiting) <= 1


async def test_a_repeated_post_is_accepted_as_a_duplicate(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice:
        await alice.register()
        once = post(alice, "alice")
        alice.send(once)
        first = await alice.expect(Accepted)
        alice.send(once)
        again = await alice.expect(Accepted)

    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.accepted_at == first.accepted_at


@pytest.mark.parametrize(
    ("to", "sealed", "code"),
    [
        ("nobody-here", b"x", "recipient_unknown"),
        ("Not A Name", b"x", "recipient_unknown"),
        ("alice", bytes(SEALED_BYTES + 1), "too_large"),
        ("alice", b"", "bad_value"),
    ],
)
async def test_a_post_that_cannot_be_is_refused_by_its_code(tmp_path: Path, to: str, sealed: bytes, code: str) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice:
        await alice.register()
        alice.send(post(alice, to, sealed))

        assert (await alice.expect(Refused)).code == code


async def test_a_pair_is_served_once_and_then_the_last_resort(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice, Peer(url, "bobby") as bobby:
        await alice.register()
        await bobby.register()
        pairs = make_pairs(bobby.account, vault_id=bobby.vault_id, count=2, entropy=system_entropy)
        bobby.send(StockPairs(bobby.next_id(), [pair.encode() for pair, _ in pairs]))
        assert (await bobby.expect(Done)).count == 2
        alice.send(*(FetchBundle(alice.next_id(), "bobby") for _ in range(3)))
        answers = [await alice.expect(BundleAnswer) for _ in range(3)]
        low = await bobby.expect(PairsLow)

    assert {answer.pair for answer in answers[:2]} == {pair.encode() for pair, _ in pairs}
    assert answers[2].pair == b""
    assert answers[2].bundle
    assert low.left == 1


async def test_a_pair_of_another_key_is_not_stocked(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice, Peer(url, "bobby") as bobby:
        await alice.register()
        await bobby.register()
        pair, _ = make_pairs(alice.account, vault_id=bobby.vault_id, count=1, entropy=system_entropy)[0]
        bobby.send(StockPairs(bobby.next_id(), [pair.encode()]))

        assert (await bobby.expect(Refused)).code == "bad_value"


async def test_an_older_bundle_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice:
        await alice.register()
        alice.send(Publish(alice.next_id(), alice.bundle(epoch=5).encode()))
        await alice.expect(Done)
        alice.send(Publish(alice.next_id(), alice.bundle(epoch=4).encode()))

        assert (await alice.expect(Refused)).code == "bad_value"


async def test_the_newest_subscription_supersedes_the_older_link(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as older:
        await older.register()
        await older.subscribe()
        async with Peer(url, "alice", older.secret) as newer:
            await newer.login()
            await newer.subscribe()
            bye = await older.expect(Bye)
            await older.ended()
            stale = await newer.subscribe(generation=1)

    assert bye.code == "superseded"
    assert isinstance(stale, Refused)
    assert stale.code == "generation_stale"


async def test_users_shows_who_receives_and_who_is_registered(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice, Peer(url, "carol") as carol:
        await carol.register()  # and does not subscribe: what is sent to her would wait
        await alice.register()
        await alice.subscribe()
        async with Peer(url, "bobby") as bobby:
            await bobby.register()
            await bobby.subscribe()
            alice.send(ListUsers(alice.next_id()))
            both = await alice.expect(Users)
        rows: list[UserRow] = []
        async with asyncio.timeout(60):
            while UserRow("bobby", False) not in rows:
                alice.send(ListUsers(alice.next_id(), everyone=True))
                rows = (await alice.expect(Users)).rows

    assert both.rows == [UserRow("alice", True), UserRow("bobby", True)]
    assert rows == [UserRow("alice", True), UserRow("bobby", False), UserRow("carol", False)]


async def test_the_sealed_state_is_kept_by_version(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice:
        await alice.register()
        alice.send(StoreState(alice.next_id(), 2, b"two"))
        await alice.expect(Done)
        alice.send(StoreState(alice.next_id(), 1, b"one"))
        refusal = await alice.expect(Refused)
        alice.send(FetchState(alice.next_id()))
        answer = await alice.expect(StateAnswer)

    assert refusal.code == "denied"
    assert (answer.version, answer.blob) == (2, b"two")


async def test_an_unknown_frame_is_refused_and_the_link_stays_up(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice:
        await alice.register()
        alice.raw(msgspec.msgpack.encode([[33, 77, "later"]]))
        refusal = await alice.expect(Refused)
        alice.send(ListUsers(alice.next_id()))
        await alice.expect(Users)

    assert (refusal.id, refusal.code) == (77, "unsupported")


async def test_requests_over_the_rate_are_refused_and_acknowledgements_are_free(tmp_path: Path) -> None:
    async with running_relay(tmp_path, rate_connection="5") as url, Peer(url, "alice") as alice:
        await alice.register()
        alice.send(*(Acknowledge(1, []) for _ in range(50)))
        alice.send(*(FetchState(alice.next_id()) for _ in range(30)))
        refusal = await alice.expect(Refused)
        answered = [frame for frame in alice.frames if isinstance(frame, StateAnswer)]
        for _ in range(10 - len(answered)):
            await alice.expect(StateAnswer)

    assert refusal.code == "rate_limited"
    assert 0 < refusal.retry_after <= 1


async def test_a_frame_that_is_no_frame_ends_the_link(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice:
        await alice.register()
        alice.raw(b"\xc1 not a frame")
        await alice.ended()

    assert alice.close_code == 1008


async def test_a_stopping_relay_says_bye(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        alice = await Peer(url, "alice").__aenter__()
        await alice.register()
        waiting = asyncio.ensure_future(alice.expect(Bye))
        await asyncio.sleep(0)

    assert (await waiting).code == "relay_unavailable"
