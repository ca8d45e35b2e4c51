"""What /metrics and /ready tell, on a relay that does real work."""

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aimessage.clock import SystemClock
from aimessage.crypto.random import system_entropy
from aimessage.relay.metrics import Gauges, Histogram, Metrics
from aimessage.relay.service import serving
from aimessage.stores.rocksdb.store import RocksStore, open_rocksdb_store
from aimessage.wire.frames import (
    Accepted,
    Ack,
    Acknowledge,
    BundleAnswer,
    CaughtUp,
    Deliver,
    FetchBundle,
    FetchState,
    Post,
    Refused,
    StateAnswer,
)
from support.relay import Peer, get, http, relay_config, running_relay
from support.sockets import OTHER, status_of

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "monitoring.md"
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
NOTHING = Gauges(0, 0, 0, 0, "")


def samples(page: str) -> dict[str, float]:
    """Return every sample of a page under its name and labels."""
    return {
        sample.name + "".join(f"[{value}]" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def page_of(url: str) -> str:
    head, _, body = (await http(url, get("/metrics"))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return body.decode()


async def metrics_of(url: str) -> dict[str, float]:
    return samples(await page_of(url))


async def post(sender: Peer, to: str, body: bytes = b"sealed", message_id: bytes | None = None) -> Accepted | Refused:
    sender.send(Post(sender.next_id(), to, message_id or os.urandom(16), 0, 0, 0, body))
    return await sender.expect(Accepted, Refused)


async def test_every_outcome_of_a_message_is_counted(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, store="rocksdb") as url,
        Peer(url, "alice") as alice,
        Peer(url, "bobby") as bobby,
        Peer(url, "a-stranger"),
    ):
        await alice.register()
        await bobby.register()
        subscribed = await bobby.subscribe()
        await bobby.expect(CaughtUp)
        once = os.urandom(16)
        await post(alice, "bobby", message_id=once)
        await post(alice, "bobby", message_id=once)
        await post(alice, "bobby", b"another")
        assert isinstance(await post(alice, "nobody-here"), Refused)
        delivery = await bobby.expect(Deliver)
        await bobby.expect(Deliver)
        alice.send(FetchBundle(alice.next_id(), "bobby"))
        await alice.expect(BundleAnswer)
        before = await metrics_of(url)
        acknowledged = Ack(delivery.position, delivery.message_id)
        bobby.send(Acknowledge(delivery.subscription, [acknowledged]))
        bobby.send(FetchState(bobby.next_id()))
        await bobby.expect(StateAnswer)
        after = await metrics_of(url)

    assert not isinstance(subscribed, Refused)
    assert before["aimessage_messages_total[accepted]"] == 2
    assert before["aimessage_messages_total[duplicate]"] == 1
    assert before["aimessage_messages_total[delivered]"] == 2
    assert before["aimessage_messages_refused_total[recipient_unknown]"] == 1
    assert before["aimessage_bundles_served_total[no]"] == 1
    assert before["aimessage_connections[logged_in]"] == 2
    assert before["aimessage_connections[not_logged_in]"] == 1
    assert before["aimessage_frames_total[in][Post]"] == 4
    assert before["aimessage_delivery_seconds_count"] == 2
    assert before["aimessage_commit_seconds_count"] >= 3
    assert before["aimessage_commit_seconds_sum"] > 0
    assert (before["aimessage_mailbox_entries"], before["aimessage_mailbox_bytes"]) == (2, 13)
    assert after["aimessage_messages_total[acknowledged]"] == 1
    assert after["aimessage_mailbox_entries"] == 1
    assert after["aimessage_ready"] == 1


async def test_nothing_about_anybody_is_on_the_page(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice, Peer(url, "bobby") as bobby:
        await alice.register()
        await bobby.register()
        await post(alice, "bobby")
        await post(alice, "carol-unknown")
        page = await page_of(url)

    assert not re.search("alice|bobby|carol|127.0.0.1", page)
    assert bobby.vault_id.hex() not in page


async def test_mail_that_waited_for_its_owner_is_not_counted_as_slow(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url, Peer(url, "alice") as alice:
        await alice.register()
        await post(alice, "alice")
        await alice.subscribe()
        await alice.expect(CaughtUp)
        found = await metrics_of(url)

    assert found["aimessage_messages_total[delivered]"] == 1
    assert found["aimessage_delivery_seconds_count"] == 0


async def test_limits_are_counted_by_name(tmp_path: Path) -> None:
    async with running_relay(tmp_path, rate_connection="1") as url, Peer(url, "alice") as alice:
        await alice.register()
        alice.send(*(FetchState(alice.next_id()) for _ in range(5)))
        await alice.expect(Refused)
        found = await metrics_of(url)

    assert found["aimessage_limits_hit_total[connection_rate]"] == 3
    assert found["aimessage_requests_refused_total[rate_limited]"] == 3


async def test_two_relays_in_one_process_do_not_add_up(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path) as first,
        running_relay(tmp_path) as second,
        Peer(first, "alice") as alice,
    ):
        await alice.register()
        await post(alice, "alice")
        assert (await metrics_of(first))["aimessage_messages_total[accepted]"] == 1
        assert (await metrics_of(second))["aimessage_messages_total[accepted]"] == 0


async def test_the_document_names_exactly_the_metrics_of_the_page(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        page = await page_of(url)

    told = set(re.findall(r"^\| `(aimessage_\w+)` \| (\w+)", DOCUMENT.read_text(), re.MULTILINE))
    shown = set(re.findall(r"^# TYPE (aimessage_\w+) (\w+)$", page, re.MULTILINE))
    assert told == shown


def test_the_document_names_exactly_the_limits_that_are_counted() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "src" / "aimessage" / "relay").glob("*.py"))
    table = DOCUMENT.read_text().partition("| limit |")[2].partition("\n\n")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(
        re.findall(r'metrics\.limit\("(\w+)"', sources)
    )


async def test_the_dashboard_asks_only_for_metrics_that_there_are(tmp_path: Path) -> None:
    async with running_relay(tmp_path, store="rocksdb") as url:
        shown = {name.partition("[")[0] for name in await metrics_of(url)}
        shown |= set(re.findall(r"^# TYPE (\w+) counter$", await page_of(url), re.MULTILINE))

    asked = {
        name
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
        for name in re.findall(r"(?:aimessage|process)_\w+", target["expr"])
    }
    assert asked <= shown


async def test_a_page_is_limited_by_a_rate_of_its_own(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as url:
        answers = [await http(url, get("/metrics", method="HEAD")) for _ in range(30)]
        ready = await http(url, get("/ready"))

    assert {answer.split(b" ", 2)[1] for answer in answers} == {b"200", b"429"}
    assert ready.startswith(b"HTTP/1.1 200")


def test_a_histogram_counts_each_bucket_with_those_below() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (-1.0, 0.1, 0.5, 2.0):
        histogram.observe(seconds)

    assert histogram.buckets() == [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)]
    assert [histogram.quantile(share) for share in (0.5, 0.75, 0.99)] == [0.1, 1.0, None]


def test_a_relay_that_has_done_nothing_has_a_summary_that_is_json() -> None:
    summary = json.loads(json.dumps(Metrics().summary(NOTHING)))

    assert summary["messages"]["accepted"] == 0
    assert summary["commit_seconds"] == {"count": 0, "p50_at_most": None, "p99_at_most": None}


@asynccontextmanager
async def held_up(store: RocksStore) -> AsyncIterator[None]:
    """Keep the store's writer busy as a disk does that has stopped answering."""
    free = threading.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store._writer.run(lambda batch: free.wait(60), grows=False))
        try:
            yield
        finally:
            free.set()


async def ready_with(url: str, status: int) -> bytes:
    """Ask until /ready answers with *status*."""
    while True:
        answer = await http(url, get("/ready"))
        if answer.startswith(b"HTTP/1.1 %d" % status):
            return answer
        await asyncio.sleep(0.1)


async def test_a_writer_that_waits_for_its_disk_is_not_ready_until_it_is_through(tmp_path: Path) -> None:
    config = relay_config(tmp_path, store="rocksdb")
    async with serving(config, clock=SystemClock(), entropy=system_entropy) as service:
        url = f"ws://127.0.0.1:{service.port}"
        assert isinstance(service._store, RocksStore)
        async with held_up(service._store), asyncio.timeout(60):
            answer = await ready_with(url, 503)
            page = await metrics_of(url)
        async with asyncio.timeout(60):
            await ready_with(url, 200)

    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "status": "not ready",
        "reason": "the relay's disk does not answer",
    }
    assert page["aimessage_ready"] == 0


async def test_a_full_disk_is_the_reason_for_not_being_ready(tmp_path: Path) -> None:
    store = await open_rocksdb_store(tmp_path / "data", clock=SystemClock(), free_bytes=lambda: 1)
    refusal = await store.check_writable()
    await store.close()

    assert refusal is not None
    assert refusal.message == "the relay's disk is nearly full"


@pytest.mark.parametrize(
    ("flags", "headers", "status"),
    [
        ({}, (), 200),
        ({"metrics": "off"}, (), 403),
        ({}, ("X-Forwarded-For: 10.0.0.1",), 403),  # some proxy's word, which nobody has vouched for
        ({}, ("Via: 1.1 proxy",), 403),
        ({"metrics": "public"}, ("X-Forwarded-For: 198.18.0.1",), 200),
        ({"trusted_proxy": "127.0.0.1"}, ("X-Forwarded-For: 8.8.8.8",), 403),
        ({"trusted_proxy": "127.0.0.1"}, ("X-Forwarded-For: 10.0.0.1",), 200),
        ({"trusted_proxy": "127.0.0.1"}, ("X-Forwarded-For: ::1",), 200),
        ({"trusted_proxy": "127.0.0.1"}, ("X-Forwarded-For: 2001:4860:4860::8888",), 403),
    ],
)
async def test_metrics_are_for_private_addresses_unless_said_otherwise(
    tmp_path: Path, flags: dict[str, str], headers: tuple[str, ...], status: int
) -> None:
    async with running_relay(tmp_path, **flags) as url:
        assert await status_of(url, request=get("/metrics", *headers)) == status


async def test_a_flood_for_metrics_leaves_the_scraper_its_share(tmp_path: Path) -> None:
    async with running_relay(tmp_path, rate_metrics="10") as url:
        flood = [await status_of(url, request=get("/metrics")) for _ in range(20)]
        assert await status_of(url, OTHER, get("/metrics")) == 200

    assert 429 in flood
