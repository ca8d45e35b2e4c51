"""What a sender hears of its messages: with an answer if one goes, alone if somebody waits, together if nobody does."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from aimessage.client import Agent, connect, control, subscription
from aimessage.client.account import Here
from aimessage.client.links import OpenLink
from aimessage.client.owed import report_of
from aimessage.client.transaction import Peer
from aimessage.e2ee import bodies
from aimessage.e2ee.bodies import Body, Receipts
from aimessage.types import MessageId, Username, parse_message_id
from support.machines import QUIET, Machine, eventually
from support.relay import running_relay


@pytest.fixture
def unpaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """No receipt goes alone: what is told was told with an answer."""

    async def flush(here: Here, link: OpenLink) -> None:
        pass

    monkeypatch.setattr(control, "flush", flush)


def owed(agent: Agent) -> list[tuple[MessageId, int]]:
    with agent._here.vault.reading() as vault:
        return [(MessageId(each), fate) for each, fate in vault.run("SELECT id, fate FROM receipts ORDER BY fate")]


@pytest.mark.usefixtures("unpaid")
async def test_an_answer_takes_along_what_its_sender_is_to_hear(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me, connect(bobby.settings) as you, asyncio.timeout(60):
            async with aclosing(me.listen()) as answers, aclosing(you.listen()) as messages:
                for text in ("one", "two"):
                    sent = await me.send("bobby", text)
                    message = await anext(messages)
                    assert [each for each, _ in owed(you)] == [parse_message_id(sent.id)]
                    await message.reply(f"{text}, too")
                    assert (await anext(answers)).text == f"{text}, too"
                    assert me.status(sent.id).state == "delivered"
                    assert owed(you) == []
            shown = [entry.received for entry in me.history() if entry.received]
            assert [message.text for message in shown] == ["one, too", "two, too"]


@pytest.mark.usefixtures("unpaid")
async def test_a_message_that_ends_early_or_has_no_room_leaves_the_receipt_behind(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with (
            asyncio.timeout(60),
            connect(alice.settings) as me,
            connect(bobby.settings) as you,
            aclosing(you.listen()) as messages,
        ):
            sent = await me.send("bobby", "hello")
            await anext(messages)
            debt = [(parse_message_id(sent.id), int(Receipts.DELIVERED))]
            await you.send("alice", "for a minute", ttl=timedelta(minutes=1))
            assert owed(you) == debt
            full = next(
                size for size in range(100, 500)
                if bodies.spare_bytes(Body("text", bytes(16), 1, you._here.now_ms, text="x" * size)) < 20
            )  # fmt: skip
            await you.send("alice", "x" * full)
            assert owed(you) == debt
            await you.send("alice", "short")
            assert owed(you) == []


async def test_receipts_that_nobody_waits_for_go_together_later_and_awaited_ones_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "_UNHURRIED_SECONDS", 3600)
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with (
            asyncio.timeout(60),
            connect(alice.settings) as me,
            connect(bobby.settings) as you,
            aclosing(you.listen()) as messages,
        ):
            first = asyncio.create_task(me.send("bobby", "first", wait_for="delivered"))
            await anext(messages)
            await first
            sent = [await me.send("bobby", str(number)) for number in range(5)]
            for _ in range(5):
                await anext(messages)
            await me.refresh()
            assert {me.status(each.id).state for each in sent} == {"accepted"}
            last = await me.send("bobby", "and now?", wait_for="delivered", timeout=50)
            assert last.state == "delivered"
            assert {(await me.until(each, "delivered")).state for each in sent} == {"delivered"}
            assert owed(you) == []


async def test_receipts_that_nobody_waits_for_go_by_themselves(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with (
            asyncio.timeout(60),
            connect(alice.settings) as me,
            connect(bobby.settings) as you,
            aclosing(you.listen()) as messages,
        ):
            sent = await me.send("bobby", "hello")
            await anext(messages)

            async def is_delivered() -> bool:
                await me.refresh()
                return me.status(sent.id).state == "delivered"

            await eventually(is_delivered)


async def test_a_debt_that_is_paid_meanwhile_hurries_no_other() -> None:
    paced = subscription.Subscription.__new__(subscription.Subscription)
    paced._unhurried, paced._unhurried_until = frozenset(), 0.0
    one, two = MessageId(bytes(16)), MessageId(bytes(15) + b"2")

    def debts(*ids: MessageId, soon: bool = False) -> control.Debts:
        return control.Debts(soon, frozenset(ids))

    assert not paced._is_time(debts(one))
    paced._unhurried_until = 0.0  # it is time, and the one that was owed has gone with an answer
    assert not paced._is_time(debts(two))
    assert not paced._is_time(debts(one, two))
    paced._unhurried_until = 0.0
    assert paced._is_time(debts(one, two))
    assert paced._is_time(debts(one, soon=True))
    assert not paced._is_time(debts())


async def test_receipts_in_a_message_that_make_no_sense_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me, connect(bobby.settings) as you, asyncio.timeout(60):
            await me.send("bobby", "hello")
            await you.wait(timeout=30)
            encode = bodies.encode_body
            for report in (b"\xff", b"\x91\x92\x01\x91\xc4\x01a", b"\x91\x92\x63\x91\xc4\x10" + bytes(16)):
                monkeypatch.setattr(
                    "aimessage.client.sealing.encode_body",
                    lambda body, report=report: encode(replace(body, report=report)),
                )
                await you.send("alice", f"with {report.hex()}")
                [message] = await me.wait(timeout=30)
                assert message.text == f"with {report.hex()}"


async def test_only_a_message_to_this_peer_under_this_key_is_believed_to_have_arrived(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, _, _ = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby", "carol")
        async with connect(alice.settings) as me:
            sent = await me.send("bobby", "hello")
            await me.send("carol", "hello")
            report = report_of([(parse_message_id(sent.id), int(Receipts.DELIVERED))])
            here = me._here

            def told(name: str, pin: bytes | None) -> str:
                with here.vault.transaction() as vault:
                    peer: Peer = vault.peer(here.address(Username(name)))
                    control.hear_receipts(here, vault, peer, peer.pin if pin is None else pin, report)  # type: ignore[arg-type]
                return me.status(sent.id).state

            assert told("carol", None) == "accepted"
            assert told("bobby", bytes(64)) == "accepted"
            assert told("bobby", None) == "delivered"
