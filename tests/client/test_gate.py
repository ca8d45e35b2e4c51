"""Who is heard: strangers wait and are bounded, a word releases them in order, a block is silent, a key is compared."""

import sqlite3
from pathlib import Path

import pytest

from aimessage.client import Agent, Contact, connect, register
from aimessage.client.gate import MESSAGES_OF_ONE
from aimessage.client.schema import SCHEMA_STEPS
from aimessage.client.vault import Vault
from aimessage.errors import BadValue, Blocked, PeerIdentityChanged
from aimessage.types import SecretBytes
from support.machines import QUIET, Machine
from support.relay import running_relay


async def guarded(home: Path, url: str, policy: str = "contacts") -> tuple[Machine, Machine]:
    """Return bobby, whose gate is *policy*, and alice, whom he does not know."""
    bobby, alice = Machine(home, "bobby", url), Machine(home, "alice", url)
    await register(bobby.settings, "bobby", contact_policy=policy)
    await register(alice.settings, "alice")
    return bobby, alice


def known(me: Agent, name: str) -> Contact:
    """Return what *me* knows of *name*."""
    return next(each for each in me.contacts() if each.name == name)


async def test_a_stranger_waits_unseen_until_it_is_accepted_and_then_comes_in_order(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await guarded(tmp_path / "home", url)
        await alice.send("bobby", "one", "two", "three")
        async with connect(bobby.settings) as me:
            [request] = await me.wait(timeout=30)
            assert (request.type, request.from_, request.contact) == ("contact_request", "alice", "pending")
            assert request.from_fingerprint
            assert request.text is None
            assert not request.flags
            await me.refresh()
            assert known(me, "alice").requests == 3
            assert await me.wait(timeout=0.2) == []
            assert [entry.received.type for entry in me.history() if entry.received] == ["contact_request"]

            me.contact_accept("alice")

            messages = await me.wait(timeout=30)
            assert [each.text for each in messages] == ["one", "two", "three"]
            assert {each.contact for each in messages} == {"accepted"}
            assert not any(each.flags for each in messages)


async def test_a_stranger_hears_nothing_until_it_is_accepted(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await guarded(tmp_path / "home", url)
        async with connect(alice.settings) as her, connect(bobby.settings) as him:
            sent = await her.send("bobby", "hello")
            [request] = await him.wait(timeout=30)
            assert request.type == "contact_request"
            await him.flush()
            await her.refresh()
            assert her.status(sent.id).state == "accepted"

            him.contact_accept("alice")
            await him.flush()

            assert (await sent.delivered(timeout=30)).state == "delivered"


async def test_sending_to_a_stranger_accepts_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await guarded(tmp_path / "home", url)
        await alice.send("bobby", "hello")
        async with connect(bobby.settings) as me:
            await me.wait(timeout=30)
            await me.send("alice", "yes?")
            [message] = await me.wait(timeout=30)
            assert (message.text, known(me, "alice").contact) == ("hello", "accepted")


async def test_a_request_admits_the_answer_and_the_answer_makes_a_contact(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await guarded(tmp_path / "home", url)
        async with connect(bobby.settings) as me:
            await me.contact_request("alice", "may I?")
            assert known(me, "alice").contact == "requested"
            await alice.send("bobby", "do")
            [message] = await me.wait(timeout=30)
            assert (message.text, message.contact, known(me, "alice").contact) == ("do", "accepted", "accepted")


async def test_a_flood_of_one_stranger_is_bounded_and_what_was_not_kept_shows_as_a_gap(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await guarded(tmp_path / "home", url)
        async with connect(bobby.settings) as me:
            await alice.send("bobby", *(str(number) for number in range(MESSAGES_OF_ONE + 5)))
            await me.wait(timeout=30)
            await me.refresh()
            stranger = known(me, "alice")
            assert (stranger.requests, stranger.turned_away) == (MESSAGES_OF_ONE, 5)
            me.contact_accept("alice")
            messages = await me.wait(timeout=30)
            assert [each.text for each in messages] == [str(number) for number in range(MESSAGES_OF_ONE)]


async def test_strangers_beyond_the_bound_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimessage.client.gate.STRANGERS", 2)
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await guarded(tmp_path / "home", url)
        others = await Machine.enrolled(tmp_path / "home", url, "carol", "david")
        for each in (alice, *others):
            await each.send("bobby", "hello")
        async with connect(bobby.settings) as me:
            requests = await me.wait(timeout=30)
            await me.refresh()
            assert {each.from_ for each in requests} == {"alice", "carol"}
            assert {each.name for each in me.contacts()} == {"alice", "carol"}


async def test_a_closed_gate_keeps_nothing_of_a_stranger(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await guarded(tmp_path / "home", url, "closed")
        [carol] = await Machine.enrolled(tmp_path / "home", url, "carol")
        await alice.send("bobby", "hello")
        async with connect(bobby.settings) as me:
            me.contact_accept("carol")
            await carol.send("bobby", "as agreed")
            assert [each.text for each in await me.wait(timeout=30)] == ["as agreed"]
            assert [each.name for each in me.contacts()] == ["carol"]


async def test_a_block_drops_what_comes_tells_nobody_and_leaves_no_gap(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await Machine.enrolled(tmp_path / "home", url, "bobby", "alice")
        [carol] = await Machine.enrolled(tmp_path / "home", url, "carol")
        await alice.send("bobby", "before")
        assert [each.text for each in await bobby.heard(1)] == ["before"]
        async with connect(bobby.settings) as me, connect(alice.settings) as her:
            me.contact_block("alice")
            unheard = await her.send("bobby", "while blocked")
            await carol.send("bobby", "hello")
            assert [each.text for each in await me.wait(timeout=30)] == ["hello"]
            await me.flush()
            await her.refresh()
            assert her.status(unheard.id).state == "accepted"
            with pytest.raises(Blocked, match="alice is blocked"):
                await me.send("alice", "hello")

            me.contact_accept("alice")
            await her.send("bobby", "after")

            [message] = await me.wait(timeout=30)
            assert (message.text, message.flags) == ("after", ())


async def test_a_gate_and_its_judgements_survive_a_lost_vault(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, _ = await guarded(tmp_path / "home", url)
        async with connect(bobby.settings) as me:
            me.contact_block("alice")
            await me.wait(timeout=0.5)
        fresh = bobby.container(tmp_path / "fresh")
        async with connect(fresh) as me:
            assert (me.contact_policy, known(me, "alice").contact) == ("contacts", "blocked")


async def test_a_compared_key_is_verified_and_the_past_says_so(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await Machine.enrolled(tmp_path / "home", url, "bobby", "alice")
        await alice.send("bobby", "hello")
        async with connect(bobby.settings) as me, connect(alice.settings) as her:
            [message] = await me.wait(timeout=30)
            assert (message.from_trust, message.contact) == ("first-use", "none")
            assert (await me.contact_verify("alice", her.address)).trust == "verified"
            assert [entry.received.from_trust for entry in me.history() if entry.received] == ["verified"]
            await her.send("bobby", "and now")
            [message] = await me.wait(timeout=30)
            assert message.from_trust == "verified"


async def test_the_safety_number_is_one_for_both_and_verifies(tmp_path: Path) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, alice = await Machine.enrolled(tmp_path / "home", url, "bobby", "alice")
        async with connect(bobby.settings) as me, connect(alice.settings) as her:
            await me.send("alice", "hello")
            await her.wait(timeout=30)
            number = her.safety_number("bobby")
            assert me.safety_number("alice") == number
            spoilt = number[:-1] + str((int(number[-1]) + 1) % 10)
            with pytest.raises(PeerIdentityChanged):
                await me.contact_verify("alice", spoilt)
            assert (await me.contact_verify("alice", number)).trust == "verified"


@pytest.mark.parametrize("claim", ["0123456789abcdef", "alice~short", "carol~" + "a" * 52])
async def test_what_is_too_short_or_anothers_verifies_nobody(tmp_path: Path, claim: str) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        bobby, _ = await Machine.enrolled(tmp_path / "home", url, "bobby", "alice")
        async with connect(bobby.settings) as me:
            with pytest.raises(BadValue):
                await me.contact_verify("alice", claim)


async def test_a_changed_key_stops_everything_until_a_person_has_compared_it(tmp_path: Path) -> None:
    async with running_relay(tmp_path / "one", **QUIET) as url:
        bobby, alice = await Machine.enrolled(tmp_path / "home", url, "bobby", "alice")
        await alice.send("bobby", "hello")
        await bobby.heard(1)
        async with connect(bobby.settings) as me:
            await me.send("alice", "hello yourself")
            old = known(me, "alice").fingerprint
        _pin_another_key(bobby, "alice")
        async with connect(bobby.settings) as me, connect(alice.settings) as her:
            assert known(me, "alice").fingerprint != old
            with pytest.raises(PeerIdentityChanged) as refusal:
                await me.send("alice", "is it you?")
            assert "contacts verify alice" in (refusal.value.hint or "")
            assert known(me, "alice").trust == "changed"

            contact = await me.contact_verify("alice", her.address)

            assert (contact.trust, contact.fingerprint) == ("verified", old)
            await me.send("alice", "welcome back")
            assert [each.text for each in await her.wait(timeout=30)][-1] == "welcome back"


def _pin_another_key(machine: Machine, name: str) -> None:
    """Let *machine* have met another owner of *name*, in another life."""
    here = machine.here()
    try:
        with here.vault.transaction() as vault:
            peer = vault.peer(here.address(next(each for each in vault.peer_names() if each == name)))
            peer.pin = bytes(64)
            peer.conversation = type(peer.conversation).empty(peer.conversation.peer)
            vault.save_peer(peer)
    finally:
        here.close()


async def test_an_older_vault_keeps_its_contacts_and_takes_the_new_tables(tmp_path: Path) -> None:
    path, key = tmp_path / "vault.db", SecretBytes(bytes(32))
    with sqlite3.connect(path) as old:
        for script in SCHEMA_STEPS[:2]:
            old.executescript(script)
        old.execute("INSERT INTO peers (name) VALUES ('alice')")
        old.execute("PRAGMA user_version = 2")
    old.close()
    vault = Vault(path, key)
    with vault.reading() as now:
        assert now.standing("alice") == (None, "first-use", "accepted")
        assert now.run("SELECT count(*) FROM automatic").fetchone() == (0,)
    vault.close()
