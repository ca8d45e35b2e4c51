"""The loop guard: what answers for ever stops, at the sender; the receiver shows what a sender did not stop."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from aimessage.client import Agent, Message, connect
from aimessage.client.loops import MOST_AUTOMATIC, MOST_HOPS
from aimessage.errors import LoopStopped, SecretFound
from support.machines import QUIET, Machine
from support.relay import running_relay


async def answer_all(me: Agent, until: str = "no more") -> LoopStopped | None:
    """Answer everything politely until the guard says stop, or the other side says that it was stopped."""
    async with aclosing(me.listen()) as messages:
        async for message in messages:
            if message.text == until:
                return None
            try:
                await message.reply("thank you!")
            except LoopStopped as stopped:
                await me.send(message.from_, until)
                return stopped
    raise AssertionError("the stream ended")


async def test_two_polite_agents_stop_by_themselves_and_say_why(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with asyncio.timeout(120), connect(alice.settings) as one, connect(bobby.settings) as other:
            await one.send("bobby", "hello")
            ends = await asyncio.gather(answer_all(one), answer_all(other))
            [stopped] = [each for each in ends if each is not None]
            assert str(MOST_HOPS) in str(stopped) or str(MOST_AUTOMATIC) in str(stopped)
            sent = sum(1 for me in (one, other) for entry in me.history(limit=100) if entry.sent)
            assert sent == MOST_HOPS + 2  # the first word, its replies, and the last word


async def test_hops_are_counted_even_if_the_sender_claims_none(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as one, connect(bobby.settings) as other:
            await one.send("bobby", "hello", hops=5)
            [message] = await other.wait(timeout=30)
            assert message.hops == 5
            await other.send("alice", "I am the first!", reply_to=message.id, hops=0)
            [answer] = await one.wait(timeout=30)
            assert answer.hops == 6


async def test_a_minute_holds_so_many_automatic_messages_of_a_pair_and_then_goes_on(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, _, _ = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby", "carol")
        async with connect(alice.settings) as me:
            for number in range(MOST_AUTOMATIC):
                await me.send("bobby", f"automatic {number}", hops=2)
            with pytest.raises(LoopStopped) as stopped:
                await me.send("bobby", "one too many", hops=2)
            assert stopped.value.retry_after is not None
            assert timedelta() < stopped.value.retry_after <= timedelta(minutes=1)
            await me.send("bobby", "a person's word", hops=1)
            await me.send("carol", "another pair", hops=2)
            here = alice.here()
            with here.vault.transaction() as vault:
                vault.run("UPDATE automatic SET at = at - 60000")
            here.close()
            await me.send("bobby", "a minute later", hops=2)


async def test_a_message_over_the_limit_is_shown_with_a_flag_and_cannot_be_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        with monkeypatch.context() as unguarded:
            unguarded.setattr("aimessage.client.loops.MOST_HOPS", 1000)
            await _send(alice, MOST_HOPS + 1)
        async with connect(bobby.settings) as me:
            [message] = await me.wait(timeout=30)
            assert (message.text, message.flags, message.expects_reply) == ("again", ("loop",), False)
            with pytest.raises(LoopStopped):
                await message.reply("and again")


async def _send(machine: Machine, hops: int) -> None:
    async with connect(machine.settings) as me:
        await me.send("bobby", "again", hops=hops)


async def test_a_sender_can_say_that_no_answer_is_wanted(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as one, connect(bobby.settings) as other:
            await one.send("bobby", "for your files", expects_reply=False)
            [message] = await other.wait(timeout=30)
            assert message.expects_reply is False
            await message.reply("noted", expects_reply=False)
            [answer] = await one.wait(timeout=30)
            assert answer.expects_reply is False


async def test_a_secret_stays_here_unless_it_is_meant(tmp_path: Path) -> None:
    secret = "the token is ghp_" + "Ab3" * 12
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as one, connect(bobby.settings) as other:
            with pytest.raises(SecretFound, match="github-token"):
                await one.send("bobby", secret)
            with pytest.raises(SecretFound, match="github-token"):
                await one.send("bobby", data={"nested": [secret]})
            assert one.history() == []
            await one.send("bobby", secret, allow_secrets=True)
            received: list[Message] = await other.wait(timeout=30)
            assert [each.text for each in received] == [secret]
