"""One peer, one process or one relay that misbehaves costs the others nothing."""

import asyncio
import os
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from aimessage.client import Letter, connect
from aimessage.client.links import refusal
from aimessage.client.locks import take_lock
from aimessage.client.outbox import abandon, save
from aimessage.crypto.random import system_entropy
from aimessage.errors import RelayChanged
from aimessage.types import Username
from aimessage.wire.frames import Accepted, Post, Refused
from support.machines import QUIET, Machine, eventually
from support.relay import Peer, running_relay


async def test_garbage_from_a_stranger_holds_up_nobody_elses_mail(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with Peer(url, "mallory") as mallory:
            await mallory.register()
            for number in range(40):
                post = Post(mallory.next_id(), "bobby", system_entropy(16), 0, 0, 0, bytes(60_000) + bytes([number]))
                mallory.send(post)
                await mallory.expect(Accepted)
        await alice.send("bobby", "from a friend")
        async with asyncio.timeout(45), connect(bobby.settings) as you, aclosing(you.listen()) as messages:
            async for message in messages:
                if message.text == "from a friend":
                    break


async def test_two_machines_that_send_as_one_identity_show_no_gap(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as one, connect(alice.container(tmp_path / "other")) as other:
            for number in range(3):
                await one.send("bobby", f"one {number}")
                await other.send("bobby", f"other {number}")
        shown = [(str(message.text), message.flags) for message in await bobby.heard(6)]
        assert sorted(shown) == [(f"{who} {number}", ()) for who in ("one", "other") for number in range(3)]


async def test_a_command_that_hangs_over_one_peer_holds_up_no_receipt_to_another(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby, carol = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby", "carol")
        lock = take_lock(bobby.settings.directory / "locks" / "peer-alice")  # as a stopped send of bobby's would
        assert lock is not None
        try:
            await alice.send("bobby", "one")
            async with connect(bobby.settings) as you, aclosing(you.listen()) as messages:
                assert (await anext(messages)).text == "one"
                following = asyncio.ensure_future(anext(messages))
                async with connect(carol.settings) as me:
                    assert (await me.send("bobby", "two", wait_for="delivered", timeout=45)).state == "delivered"
                assert (await following).text == "two"
        finally:
            os.close(lock)


async def test_an_answer_that_was_not_shown_comes_again(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")

        async def answer() -> None:
            async with connect(bobby.settings) as you:
                (question,) = await you.wait(timeout=45)
                await question.reply("seven")

        async with connect(alice.settings) as me:
            _, found = await asyncio.gather(answer(), me.ask("bobby", "how many?", timeout=45, keep=True))
            assert found.text == "seven"  # and then the process ends without having printed it
        async with connect(alice.settings) as me:
            assert [(message.text, message.redelivered) for message in await me.wait(timeout=45)] == [("seven", True)]


async def test_the_key_of_a_message_that_never_left_is_free_again(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        (alice,) = await Machine.enrolled(tmp_path / "home", url, "alice")
        here = alice.here()
        message_id = save(here, Username("bobby"), Letter("pay", idempotency_key="k"))
        assert abandon(here, [message_id], RelayChanged("another relay answers there")) == {message_id}
        assert save(here, Username("bobby"), Letter("pay", idempotency_key="k")) != message_id
        here.close()


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300, -1.0])
def test_a_relay_cannot_put_a_command_to_sleep_for_ever(seconds: float) -> None:
    wait = refusal(Refused(1, "rate_limited", "later", seconds)).retry_after
    assert wait is None or wait <= timedelta(hours=1)


async def test_a_listen_after_a_send_becomes_the_active_machine_again(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(bobby.settings) as here:
            await here.send("alice", "a link is open now")
            async with connect(bobby.container(tmp_path / "other")) as there:
                await there.wait(timeout=0.3)  # the other machine takes over meanwhile
            async with aclosing(here.listen()) as messages:
                coming = asyncio.ensure_future(anext(messages))

                async def active() -> bool:
                    mine = bobby.here()
                    with mine.vault.transaction() as vault:
                        counted = vault.meta("takeovers") is not None
                    mine.close()
                    return counted

                await eventually(active)
                await alice.send("bobby", "welcome back")
                assert (await coming).text == "welcome back"
