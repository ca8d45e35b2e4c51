"""What a type checker sees of the public surface. Checked by `test_typing.py`, never run."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import timedelta
from typing import assert_type

import aimessage
from aimessage import Agent, Message, Sent, errors, sync
from aimessage.client import Entry, Fate, InboxPage
from aimessage.testing import agents, pair


async def asynchronous() -> None:
    """Every call of the page on the SDK, and what it gives."""
    async with aimessage.connect(agent="planner") as me:
        assert_type(me, Agent)
        sent = await me.send("worker-1", "go", thread="t-7", ttl=timedelta(hours=1), wait_for="delivered", timeout=3)
        assert_type(sent, Sent)
        assert_type(await sent.handled(timeout=30), Sent)
        answer = await me.ask("worker-1", data={"a": 1}, timeout=timedelta(minutes=5))
        assert_type(answer, Message)
        assert_type(answer.text, str | None)
        assert_type(answer.data, object)
        assert_type(answer.flags, tuple[str, ...])
        assert_type(await me.wait(timeout=55), list[Message])
        assert_type(me.listen(count=3), AsyncGenerator[Message, None])
        assert_type(me.history(limit=3), list[Entry])
        assert_type(me.status(sent.id), Fate)
        page = await me.inbox(limit=3, max_chars=2_000)
        assert_type(page, InboxPage)
        assert_type(page.more_waiting, bool)
        await answer.reply(data=[1, 2], expects_reply=False)
        await answer.ack()

        await me.send(5, "go")  # type: ignore[arg-type]
        await me.send("worker-1", b"go")  # type: ignore[arg-type]
        await me.send("worker-1", "go", urgent=True)  # type: ignore[call-arg]
        await me.ask("worker-1")
        answer.text = "another"  # type: ignore[misc]
        for _ in me.listen():  # type: ignore[attr-defined]
            pass


def blocking() -> None:
    """The same without `await`."""
    with sync.connect(agent="planner") as me:
        assert_type(me, sync.Agent)
        sent = me.send("worker-1", "go", wait_for="accepted")
        assert_type(sent, sync.Sent)
        assert_type(sent.read(timeout=3), sync.Sent)
        assert_type(me.wait(timeout=3), list[sync.Message])
        assert_type(me.listen(count=1), Iterator[sync.Message])
        reply = me.ask("worker-1", "status?")
        assert_type(reply.reply("thanks", expects_reply=False), sync.Sent)
        reply.ack()

        me.send("worker-1", text=3)  # type: ignore[arg-type]
        reply.reply(42)  # type: ignore[arg-type]


async def in_tests() -> None:
    """Networks of one's own, in both kinds of code."""
    async with pair("planner", "worker-1") as two:
        assert_type(two, tuple[Agent, ...])
    with agents("a", "b", "c") as three:
        assert_type(three, tuple[sync.Agent, ...])


def failures(error: errors.AimessageError) -> Sequence[str]:
    """What every error says."""
    assert_type(error.code, str)
    assert_type(error.hint, str | None)
    assert_type(error.retryable, bool)
    assert_type(error.retry_after, timedelta | None)
    assert_type(error.message_id, str | None)
    return [error.message, errors.NoSuchError.code]  # type: ignore[attr-defined]
