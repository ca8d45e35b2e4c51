"""What the client promises, against a real relay: saved before sent, one effect, one session, one identity."""

import asyncio
import os
import sqlite3
import stat
import sys
from collections.abc import AsyncIterable, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from aimessage.client import Message, Settings, connect, consumers, register
from aimessage.client.account import open_here
from aimessage.client.changes import Changes
from aimessage.client.connection import Connection
from aimessage.client.handover import Handover
from aimessage.client.inbox import take_in
from aimessage.client.link import Link
from aimessage.client.profile import load_profile
from aimessage.client.subscription import Subscription
from aimessage.errors import (
    BadValue,
    Blocked,
    EmptyMessage,
    NoIdentity,
    PeerIdentityChanged,
    RecipientUnknown,
    RelayUnreachable,
    UsernameTaken,
    VaultDamaged,
    VaultNewer,
)
from aimessage.types import Username
from aimessage.wire.frames import BundleAnswer, Deliver
from support.machines import QUIET, Machine, enrolled, heard
from support.relay import running_relay


def settings(tmp_path: Path, url: str, agent: str) -> Settings:
    return Settings(home=tmp_path / "home", agent=agent, server=url)


async def test_messages_cross_both_ways_with_their_order_kept(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me:
            for number in range(30):
                await me.send("bobby", f"number {number}")
        assert [message.text for message in await heard(bobby, 30)] == [f"number {number}" for number in range(30)]
        async with connect(bobby) as me:
            await me.send("alice", "heard", thread="t-1")
        (answer,) = await heard(alice, 1)
        assert (answer.text, answer.thread, answer.from_, answer.content_trust) == (
            "heard",
            "t-1",
            "bobby",
            "untrusted",
        )


async def test_twelve_first_sends_at_once_make_one_session(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")

        async def one(number: int) -> None:
            async with connect(alice) as me:  # its own vault and link, as a process of its own would have
                await me.send("bobby", f"first {number}")

        await asyncio.gather(*(one(number) for number in range(12)))
        texts = {message.text for message in await heard(bobby, 12)}
        assert texts == {f"first {number}" for number in range(12)}
        here = open_here(load_profile(bobby), None)
        with here.vault.transaction() as vault:
            assert len(vault.peer(here.address(Username("alice"))).conversation.sessions) == 1
        here.vault.close()


async def test_a_delivery_that_comes_twice_has_one_effect(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me:
            await me.send("bobby", "once")
        here = open_here(load_profile(bobby), None)
        connected = await Connection(here).get()
        assert await Subscription(here, connected, Changes(here.vault), Handover()).begin(publish=False)
        [delivery] = await connected.pushes.take(1)
        assert isinstance(delivery, Deliver)
        assert take_in(here, [delivery, delivery]) == [*take_in(here, [delivery]), True] == [True, True]
        connected.link.close()
        here.close()
        assert [message.text for message in await heard(bobby, 1)] == ["once"]
        async with connect(bobby) as me:
            assert await me.wait(timeout=0.2) == []


@pytest.mark.parametrize("trust", ["first-use", "pinned", "verified"])
async def test_a_changed_identity_stops_sending_and_is_never_shown(tmp_path: Path, trust: str) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        for who, other in ((alice, "bobby"), (bobby, "alice")):  # both have pinned somebody else under that name
            here = open_here(load_profile(who), None)
            with here.vault.transaction() as vault:
                peer = vault.peer(here.address(Username(other)))
                peer.pin, peer.trust = bytes(64), trust  # also one whom a person has compared
                vault.save_peer(peer)
            here.vault.close()
        async with connect(alice) as me:
            with pytest.raises(PeerIdentityChanged):
                await me.send("bobby", "to whom")
        here = open_here(load_profile(alice), None)
        with here.vault.transaction() as vault:
            assert vault.run("SELECT count(*) FROM outbox").fetchone() == (0,)
            peer = vault.peer(here.address(Username("bobby")))
            peer.pin = None
            vault.save_peer(peer)
        here.vault.close()
        async with connect(alice) as me:
            await me.send("bobby", "under another key")
        assert await first_state(bobby) == "quarantined"


async def first_state(who: Settings) -> str:
    """Listen until something is in the inbox, and return its state; nothing may be shown."""
    here = open_here(load_profile(who), None)
    shown: list[Message] = []

    async def listen() -> None:
        async with connect(who) as me:
            async for message in me.listen():
                shown.append(message)

    listening = asyncio.create_task(listen())
    state = None
    async with asyncio.timeout(60):
        while state is None:
            await asyncio.sleep(0.02)
            with here.vault.transaction() as vault:
                state = vault.run("SELECT state FROM inbox").fetchone()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    here.vault.close()
    assert shown == []
    return str(state[0])


async def test_an_unknown_recipient_leaves_nothing_in_the_outbox(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        (alice,) = await enrolled(tmp_path, url, "alice")
        async with connect(alice) as me:
            with pytest.raises(RecipientUnknown):
                await me.send("nobody-here", "hello")
            with pytest.raises(BadValue):
                await me.send("alice", "to myself")
        here = open_here(load_profile(alice), None)
        with here.vault.transaction() as vault:
            assert vault.run("SELECT count(*) FROM outbox").fetchone() == (0,)
            assert vault.contact_of(Username("nobody-here")) == "none"  # whoever takes that name is a stranger
        here.vault.close()


async def test_a_taken_name_leaves_no_identity_behind(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        await enrolled(tmp_path, url, "alice")
        late = Settings(home=tmp_path / "home", agent="late", server=url)
        with pytest.raises(UsernameTaken):
            await register(late, "alice")
        with pytest.raises(NoIdentity):
            load_profile(late)
        assert (await register(late, "alice-two")).username == "alice-two"


async def test_a_registration_whose_answer_was_lost_can_be_repeated(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        (alice,) = await enrolled(tmp_path, url, "alice")
        async with connect(alice) as me:
            before = me.fingerprint
        (alice.directory / "profile.json").unlink()  # as if the process had died before it was written
        await register(alice, "alice")
        async with connect(alice) as me:
            assert me.fingerprint == before


async def test_files_are_private_at_any_umask_and_hold_no_plaintext(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        async with running_relay(tmp_path, **QUIET) as url:
            alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
            async with connect(alice) as me:
                await me.send("bobby", "canary-of-the-vault")
            await heard(bobby, 1)
    finally:
        os.umask(umask)
    files = list((tmp_path / "home").rglob("*"))
    assert len(files) > 8
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert path.is_dir() or b"canary-of-the-vault" not in path.read_bytes()


async def test_a_newer_or_foreign_vault_is_refused_by_name(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        profile = load_profile(alice)
        (alice.directory / "token").write_bytes((bobby.directory / "token").read_bytes())
        with pytest.raises(VaultDamaged):
            async with connect(alice) as me:
                await me.users()
        database = sqlite3.connect(profile.vault_path)
        database.execute("PRAGMA user_version = 99")
        database.close()
        with pytest.raises(VaultNewer):
            open_here(profile, None)


async def test_a_kept_message_never_goes_to_another_key_than_its_address_names(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby, carol = await enrolled(tmp_path, url, "alice", "bobby", "carol")
        async with connect(carol) as me:
            wrong = "bobby~" + me.address.partition("~")[2]
        async with connect(replace(alice, server="ws://127.0.0.1:9")) as me:
            with pytest.raises(RelayUnreachable):
                await me.send(wrong, "for one key only", timeout=timedelta(milliseconds=300))
        async with connect(alice) as me:
            await me.send("bobby", "for whoever that is")
        assert [message.text for message in await heard(bobby, 1)] == ["for whoever that is"]
        here = open_here(load_profile(alice), None)
        with here.vault.transaction() as vault:
            assert vault.run("SELECT count(*) FROM outbox").fetchone() == (0,)
            fates = vault.run("SELECT fate, code FROM sent ORDER BY fate").fetchall()
        here.vault.close()
        assert fates == [("accepted", None), ("refused", "peer_identity_changed")]


async def test_mail_for_a_bundle_older_than_35_days_opens_if_it_was_the_newest(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me:
            await me.send("bobby", "sent while you were away")
        here = open_here(load_profile(bobby), None)
        with here.vault.transaction() as vault:  # as if it had registered 36 days ago and been away since
            vault.run("UPDATE bundles SET made_at = made_at - ?", (36 * 86_400_000,))
            vault.save_counter("published_at", vault.counter("published_at") - 36 * 86_400_000)
        here.vault.close()
        assert [message.text for message in await heard(bobby, 1)] == ["sent while you were away"]


async def test_processes_that_register_one_agent_at_once_leave_one_working_identity(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys; from aimessage.client import Settings, register; "
        "asyncio.run(register(Settings(home=pathlib.Path(sys.argv[1]), agent='alice', server=sys.argv[2]), "
        "'alice', if_not_exists=True))"
    )
    async with running_relay(tmp_path, **QUIET) as url:
        home = str(tmp_path / "home")
        started = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, home, url) for _ in range(4)]
        assert [await process.wait() for process in started] == [0] * 4
        async with connect(settings(tmp_path, url, "alice")) as me:
            assert [row.username for row in await me.users(everyone=True)] == ["alice"]


async def test_what_a_cancelled_wait_or_ask_had_taken_is_for_whoever_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled in the moment behind the claim, where only the end of the receiving is still awaited."""

    def cancelling(take: Callable[..., Any]) -> Callable[..., Any]:
        def taken(*arguments: object) -> object:
            found = take(*arguments)
            if found:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            return found

        return taken

    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me, connect(bobby.settings) as you:
            await me.send("bobby", "for whoever comes")
            with monkeypatch.context() as patch:
                patch.setattr(consumers, "claim", cancelling(consumers.claim))
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.create_task(you.wait(timeout=60))
            [message] = await you.wait(timeout=60)
            assert (message.text, message.redelivered) == ("for whoever comes", False)

            with monkeypatch.context() as patch:
                patch.setattr(consumers, "take_answer", cancelling(consumers.take_answer))
                asking = asyncio.create_task(you.ask("alice", "what is it?", timeout=60))
                [question] = await me.wait(timeout=60)
                await question.reply("an answer")
                with pytest.raises(asyncio.CancelledError):
                    await asking
            [answer] = await you.wait(timeout=60)
            assert answer.text == "an answer"


async def test_what_was_shown_is_told_while_the_consumer_keeps_the_next_message(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        async with connect(alice.settings) as me, connect(bobby.settings) as you:
            await me.send("bobby", "hello")
            assert [message.text for message in await you.wait(timeout=60)] == ["hello"]
            texts = ["one", "two", "three"]
            reading = [asyncio.create_task(me.send("bobby", text, wait_for="read", timeout=60)) for text in texts]
            async with aclosing(you.listen()) as messages:
                for text in texts:
                    assert (await anext(messages)).text == text
                assert [(await each).state for each in reading[:2]] == ["read", "read"]  # and the third is in hand
            reading[2].cancel()


async def _all(messages: AsyncIterable[Message]) -> list[Message]:
    return [message async for message in messages]


async def test_who_has_listened_to_its_count_tells_the_sender_of_the_last_message_too(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await enrolled(tmp_path, url, "alice", "bobby")
        async with connect(alice) as me, connect(bobby) as you, asyncio.timeout(60):
            for number in range(3):  # the same agent, which does nothing else afterwards
                listening = asyncio.create_task(_all(you.listen(count=1)))
                sent = await me.send("bobby", str(number), wait_for="delivered", timeout=30)
                assert [message.text for message in await listening] == [str(number)]
                assert sent.state in ("delivered", "read", "handled")


async def test_notes_that_were_committed_before_a_death_are_cleared_away(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        dead = bobby.settings.directory / "locks" / "worker-0123456789abcdef01234567"
        dead.parent.mkdir(exist_ok=True)
        dead.write_bytes((7).to_bytes(8, "big"))
        await alice.send("bobby", "hello")
        assert [message.text for message in await bobby.heard(1)] == ["hello"]
        assert not dead.exists()


async def test_a_first_message_asks_once_for_the_bundle_and_what_is_refused_here_asks_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    look_up = Link._look_up

    async def counted(link: Link, recipient: Username) -> BundleAnswer:
        asked.append(recipient)
        return await look_up(link, recipient)

    monkeypatch.setattr(Link, "_look_up", counted)
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby, _ = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby", "carol")
        async with connect(alice.settings) as me:
            await me.users()  # a link is open
            me.contact_block("carol")
            with pytest.raises(Blocked):
                await me.send("carol", "never")
            with pytest.raises(EmptyMessage):
                await me.send("bobby", "")
            assert asked == []
            with pytest.raises(RecipientUnknown):
                await me.send("nobody-here", "hello")
            assert set(asked) == {"nobody-here"}
            asked.clear()
            await asyncio.gather(*(me.send("bobby", f"hello {at}") for at in range(3)))
            await me.send("bobby", "again")
            assert asked == ["bobby"]
        assert len(await bobby.heard(4)) == 4
