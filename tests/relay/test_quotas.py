"""Quotas and order over real links: what is refused, what stays, and what may not overtake what."""

from collections import defaultdict
from pathlib import Path

import pytest

from aimessage.crypto.random import system_entropy
from aimessage.relay.limits import BOUNDS
from aimessage.relay.order import Order
from aimessage.wire.frames import (
    Accepted,
    Ack,
    Acknowledge,
    Deliver,
    ListUsers,
    Post,
    Proved,
    Refused,
    Subscribed,
    Users,
)
from support.relay import Peer, running_relay
from support.stores import ManualClock


def post(peer: Peer, to: str, sealed: bytes = b"sealed", control: int = 0) -> Post:
    return Post(peer.next_id(), to, system_entropy(16), 0, control, 0, sealed)


async def answers_to(peer: Peer, posts: list[Post], at_once: int) -> list[Accepted | Refused]:
    """Post in messages of *at_once* frames; return the answers in the order of the posts."""
    for at in range(0, len(posts), at_once):
        peer.send(*posts[at : at + at_once])
    answers: list[Accepted | Refused] = [await peer.expect(Accepted, Refused) for _ in posts]
    return sorted(answers, key=lambda answer: answer.id)


async def fill(url: str, to: str, senders: int, each: int, size: int, at_once: int) -> list[Accepted | Refused]:
    """Let so many senders post *each* messages and one more; return what the last one of each was answered."""
    last: list[Accepted | Refused] = []
    for value in range(senders):
        async with Peer(url, f"sender-{value}") as sender:
            assert isinstance(await sender.register(), Proved)
            posts = [post(sender, to, bytes(size)) for _ in range(each + 1)]
            *before, final = await answers_to(sender, posts, at_once)
            assert all(isinstance(answer, Accepted) for answer in before)
            last.append(final)
    return last


@pytest.mark.parametrize(("each", "size", "at_once"), [(2_500, 16, 100), (256, 1 << 16, 8)])
async def test_a_mailbox_holds_10_000_messages_or_64_mib_and_a_quarter_of_it_from_one_sender(
    tmp_path: Path, each: int, size: int, at_once: int
) -> None:
    async with running_relay(tmp_path, store="rocksdb") as url:
        async with Peer(url, "bobby") as bobby:
            await bobby.register()
        shares = await fill(url, "bobby", senders=4, each=each, size=size, at_once=at_once)
        async with Peer(url, "latecomer") as late:
            await late.register()
            [full, control] = await answers_to(
                late, [post(late, "bobby", bytes(size)), post(late, "bobby", b"c", 1)], 2
            )
        async with Peer(url, "bobby", bobby.secret) as again:
            await again.login()
            subscribed = await again.subscribe()
            first = await again.expect(Deliver)
            again.send(
                Acknowledge(first.subscription, [Ack(first.position, first.message_id)]), ListUsers(again.next_id())
            )
            await again.expect(Users)
        async with Peer(url, "latecomer", late.secret) as late:
            await late.login()
            [room] = await answers_to(late, [post(late, "bobby", bytes(size))], 1)

    assert [type(answer) for answer in shares] == [Refused] * 4
    refusals = [answer for answer in (*shares, full) if isinstance(answer, Refused)]
    assert {refusal.code for refusal in refusals} == {"mailbox_full"}
    assert ["share" in refusal.message for refusal in refusals] == [True, True, True, False, False]
    assert isinstance(control, Accepted)
    assert isinstance(subscribed, Subscribed)
    assert subscribed.waiting == 4 * each + 1  # nothing was evicted
    assert (first.sender, first.position) == ("sender-0", 1)
    assert isinstance(room, Accepted)


async def test_under_the_rate_no_message_overtakes_a_refused_one_to_the_same_recipient(tmp_path: Path) -> None:
    async with running_relay(tmp_path, rate_connection="400") as url, Peer(url, "alice") as alice:
        await alice.register()
        for name in ("bobby", "carol"):
            async with Peer(url, name) as peer:
                await peer.register()
        posts = [post(alice, "bobby" if value % 3 else "carol") for value in range(2_400)]
        answers = await answers_to(alice, posts, 30)

    refused: dict[str, list[bool]] = defaultdict(list)
    for request, answer in zip(posts, answers, strict=True):
        refused[request.to].append(isinstance(answer, Refused))
    for to, marks in refused.items():
        assert marks[0] is False
        assert True in marks, to
        assert marks == sorted(marks), f"a later message to {to} came in before an earlier one"
    told = [answer for answer in answers if isinstance(answer, Refused)]
    assert {answer.code for answer in told} == {"rate_limited"}
    assert all(0 < answer.retry_after <= 1 for answer in told)


async def test_behind_a_message_that_found_its_mailbox_full_a_smaller_one_does_not_slip_in(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, mailbox_bytes="1000", mailbox_sender_share="0") as url,
        Peer(url, "alice") as alice,
        Peer(url, "bobby") as bobby,
    ):
        await alice.register()
        await bobby.register()
        sizes = (600, 600, 8, 8)
        posts = [post(alice, "bobby", bytes(size)) for size in sizes] + [post(alice, "alice"), post(alice, "bobby")]
        [first, *refused, other, last] = await answers_to(alice, posts, 1)

    assert isinstance(first, Accepted)
    assert isinstance(other, Accepted)
    assert [answer.code for answer in (*refused, last) if isinstance(answer, Refused)] == ["mailbox_full"] * 4


def test_a_recipient_is_held_as_long_as_the_client_was_told() -> None:
    clock = ManualClock()
    order = Order(clock)

    told = order.hold("bobby", Refused(1, "rate_limited", "too many", 2.0))
    clock.seconds += 1.5
    order.begin()
    behind = order.refusal("bobby", 2)

    assert told.retry_after == 2.0
    assert behind is not None
    assert (behind.id, behind.code, behind.retry_after) == (2, "rate_limited", 0.5)
    assert order.refusal("carol", 3) is None
    clock.seconds += 0.5
    assert order.refusal("bobby", 4) is not None  # still the same lot
    order.begin()
    assert order.refusal("bobby", 5) is None


def test_what_is_final_holds_nobody_and_what_is_short_holds_for_what_is_on_its_way() -> None:
    order = Order(ManualClock())

    order.hold("bobby", Refused(1, "too_large", "too large"))
    told = order.hold("carol", Refused(2, "rate_limited", "too many", 0.001))

    assert order.refusal("bobby", 3) is None
    assert told.retry_after == BOUNDS.held_seconds


def test_the_held_recipients_are_bounded() -> None:
    order = Order(ManualClock())

    for value in range(BOUNDS.held_recipients + 10):
        order.hold(f"agent-{value}", Refused(1, "relay_unavailable", "not now", 1.0))

    assert order.refusal("agent-0", 1) is None
    assert order.refusal(f"agent-{BOUNDS.held_recipients + 9}", 1) is not None
    assert len(order._held) == BOUNDS.held_recipients
