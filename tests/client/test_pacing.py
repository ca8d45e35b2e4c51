"""A client under the limits of a real relay paces itself: what it sends arrives in order, without a refusal."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aimessage.client import Message, Settings, connect, register
from aimessage.client.links import Paces
from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.relay.limits import LinkBucket
from aimessage.relay.service import Service, serving
from aimessage.wire.frames import ClientFrame, ListUsers, MailClass, Post
from aimessage.wire.limits import RECEIPTS_FACTOR, Limits
from support.relay import HOST, relay_config

MESSAGES = 500
PATIENCE = timedelta(seconds=100)


class Watch:
    """A clock that a test winds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """Never asked here."""
        return datetime(2026, 11, 23, tzinfo=UTC)

    def monotonic(self) -> float:
        """Return the wound time."""
        return self.seconds


async def enrolled(tmp_path: Path, service: Service, *names: str) -> list[Settings]:
    url = f"ws://{HOST}:{service.port}"
    found = [Settings(home=tmp_path / "home", agent=name, server=url) for name in names]
    for each in found:
        await register(each, each.agent)
    return found


async def test_five_hundred_messages_in_bursts_all_arrive_in_order_and_none_is_refused(tmp_path: Path) -> None:
    config = relay_config(tmp_path, rate_connection="100", rate_global="100", store="rocksdb")
    async with serving(config, clock=SystemClock(), entropy=system_entropy) as service:
        alice, bobby = await enrolled(tmp_path, service, "alice", "bobby")
        got: list[Message] = []

        async def read() -> None:
            async with connect(bobby) as me, aclosing(me.listen()) as messages:
                async for message in messages:
                    await message.ack()
                    got.append(message)
                    if len(got) == MESSAGES:
                        return

        async def write() -> None:
            async with connect(alice) as me:
                for at in range(0, MESSAGES, 125):
                    burst = (
                        me.send("bobby", str(value), timeout=timedelta(seconds=100)) for value in range(at, at + 125)
                    )
                    await asyncio.gather(*burst)

        async with asyncio.timeout(120):
            await asyncio.gather(read(), write())
        refused = dict(service.metrics.messages_refused), dict(service.metrics.requests_refused)

    assert [message.text for message in got] == [str(value) for value in range(MESSAGES)]
    assert refused == ({}, {})
    assert service.metrics.limits == {}


def posted(mail_class: MailClass) -> Post:
    return Post(1, "bobby", bytes(16), 0, int(mail_class), 0, b"sealed")


def refusals(frames: Sequence[ClientFrame]) -> tuple[int, float]:
    """Send *frames* as the client paces them through the relay's buckets; return how many it refuses, and the time."""
    watch = Watch()
    limits = Limits(requests_per_second=10.0, request_burst=20)
    paces = Paces()
    paces.announced(limits, watch.seconds)
    requests, receipts = LinkBucket(10.0, watch), LinkBucket(RECEIPTS_FACTOR * 10.0, watch)
    refused = 0
    for frame in frames:
        is_receipt = isinstance(frame, Post) and frame.mail_class == MailClass.CONTROL
        watch.seconds += paces.take(watch.seconds, 1, counted=not is_receipt)
        refused += (receipts if is_receipt else requests).take() > 0
    return refused, watch.seconds


def test_at_the_default_rate_nothing_that_is_paced_is_refused() -> None:
    refused, seconds = refusals([posted(MailClass.MESSAGE)] * MESSAGES)

    assert refused == 0
    assert 50 < seconds < 56  # under 10 a second, and not much under it


def test_receipts_neither_wait_for_requests_nor_make_them_wait() -> None:
    burst = [posted(MailClass.MESSAGE)] * 18
    _, alone = refusals(burst)
    refused, with_receipts = refusals([posted(MailClass.CONTROL)] * 70 + burst)

    assert (alone, with_receipts, refused) == (0, 0, 0)


def test_many_receipts_keep_under_the_bound_that_the_relay_has_for_them() -> None:
    refused, seconds = refusals([posted(MailClass.CONTROL), ListUsers(1)] * 300)

    assert refused == 0
    assert seconds < 35
