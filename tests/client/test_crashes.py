"""The sender and the recipient are killed at every fault point of outbox and inbox: nothing is lost, nothing twice."""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from aimessage.client import connect
from support.crashing import KILLED
from support.machines import QUIET, Machine
from support.relay import running_relay

TESTS = Path(__file__).parents[1]
MOST_COMMITS = 60


async def until_killed(machine: Machine, number: int, edge: str, *action: str) -> tuple[int, list[str]]:
    """Run the action in a process that dies at one commit; return its exit code and its lines."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "support.crashing",
        str(machine.settings.home),
        machine.name,
        str(machine.settings.server),
        str(number),
        edge,
        *action,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent / 'src'}{os.pathsep}{TESTS}"},
    )
    out, _ = await process.communicate()
    assert process.returncode in (0, KILLED)
    return process.returncode or 0, out.decode().splitlines()


@pytest.mark.parametrize("edge", ["before", "after", "power cut"])
async def test_a_sender_killed_at_any_commit_loses_nothing_and_keeps_its_id(tmp_path: Path, edge: str) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        killed, number = 0, 0
        while True:
            text = f"pay {number} once"
            code, _ = await until_killed(alice, number, edge, "send", text)
            ids = set()
            async with connect(alice.settings) as me:
                for _ in range(2):
                    ids.add((await me.send("bobby", text, idempotency_key=text)).id)
            assert len(ids) == 1
            number += 1
            if code == 0:
                break
            killed += 1
            assert number < MOST_COMMITS
        assert killed >= 3  # saved, sealed, accepted
        async with connect(bobby.settings) as you:
            messages = await you.wait(limit=1000, timeout=30)
        assert [message.text for message in messages] == [f"pay {at} once" for at in range(number)]
        assert {message.flags for message in messages} == {()}


@pytest.mark.parametrize("edge", ["before", "after", "power cut"])
async def test_a_sender_and_a_recipient_of_batches_killed_at_any_commit_lose_nothing(tmp_path: Path, edge: str) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        shown: Counter[str] = Counter()
        numbers = {"send_all": 0, "receive": 0}
        for turn in range(MOST_COMMITS):
            words = [f"{turn}-{part}" for part in "abcde"]
            killed_sender, _ = await until_killed(alice, numbers["send_all"], edge, "send_all", " ".join(words))
            async with connect(alice.settings) as me:
                ids = [(await me.send("bobby", word, idempotency_key=word)).id for word in words]
            killed_recipient, lines = await until_killed(bobby, numbers["receive"], edge, "receive", "")
            shown.update(lines)
            async with connect(bobby.settings) as you:
                while page := await you.wait(timeout=0 if all(shown[word] for word in words) else 10):
                    for message in page:
                        assert message.redelivered or message.text not in shown
                        shown[str(message.text)] += 1
            assert len(set(ids)) == len(words) and all(shown[word] for word in words)
            if not killed_sender and not killed_recipient:
                break
            numbers["send_all"] += killed_sender != 0
            numbers["receive"] += killed_recipient != 0
        assert numbers["send_all"] >= 2 and numbers["receive"] >= 4
        here = bobby.here()
        with here.vault.transaction() as vault:
            assert vault.run("SELECT id FROM inbox GROUP BY id HAVING count(*) > 1").fetchall() == []
            assert vault.run("SELECT count(*) FROM inbox WHERE envelope IS NOT NULL").fetchone()[0] >= 5
        here.close()


@pytest.mark.parametrize("edge", ["before", "after", "power cut"])
async def test_a_recipient_killed_at_any_commit_applies_each_message_once(tmp_path: Path, edge: str) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        shown: Counter[str] = Counter()
        killed, number = 0, 0
        async with connect(alice.settings) as me:
            while True:
                texts = [f"{number}-{part}" for part in "ab"]
                for text in texts:
                    await me.send("bobby", text)
                code, lines = await until_killed(bobby, number, edge, "receive", "")
                shown.update(lines)
                async with connect(bobby.settings) as you:
                    for message in await you.wait(timeout=0 if code == 0 else 2):
                        assert message.redelivered or message.text not in shown
                        shown[str(message.text)] += 1
                    again = await you.wait(timeout=0)
                assert again == []
                assert all(shown[text] >= 1 for text in texts)
                number += 1
                if code == 0:
                    break
                killed += 1
                assert number < MOST_COMMITS
            assert killed >= 4  # subscribed, taken in, claimed, shown
            here = bobby.here()
            with here.vault.transaction() as vault:
                rows = vault.run("SELECT id, count(*) FROM inbox GROUP BY id HAVING count(*) > 1").fetchall()
                states = {state for (state,) in vault.run("SELECT DISTINCT state FROM inbox")}
            here.close()
            assert rows == [] and states <= {"shown", "handled"}
            assert await me.refresh()
            assert {entry.sent.state for entry in me.history(limit=1000) if entry.sent} <= {
                "delivered",
                "read",
                "handled",
            }


NEVER = 1_000


@pytest.mark.parametrize("already_there", [True, False])
async def test_a_listener_that_dies_with_a_message_in_hand_leaves_that_one_and_no_earlier_one(
    tmp_path: Path, already_there: bool
) -> None:
    texts = [f"task {number}" for number in range(6)]
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        dying = until_killed(bobby, NEVER, "before", "listen", "4")
        if already_there:
            await alice.send("bobby", *texts)
            code, lines = await dying
        else:
            listening = asyncio.create_task(dying)
            async with connect(alice.settings) as me:
                await asyncio.gather(*(me.send("bobby", text) for text in texts))
            code, lines = await listening
        assert (code, lines) == (KILLED, texts[:4])
        rest = await bobby.heard(3)
        assert rest[0].redelivered
        assert [message.text for message in rest] == texts[3:]


@pytest.mark.parametrize("edge", ["before", "after", "power cut"])
async def test_a_listener_killed_at_any_commit_shows_everything_and_marks_what_it_shows_again(
    tmp_path: Path, edge: str
) -> None:
    async with running_relay(tmp_path, **QUIET) as url:
        alice, bobby = await Machine.enrolled(tmp_path / "home", url, "alice", "bobby")
        number = 0
        while True:
            texts = [f"{number}-{part}" for part in "abc"]
            await alice.send("bobby", *texts)
            _, lines = await until_killed(bobby, number, edge, "listen", str(len(texts)))
            shown = Counter(lines)
            async with connect(bobby.settings) as you:
                for message in await you.wait(timeout=0 if lines == texts else 5):
                    assert message.redelivered or message.text not in shown
                    shown[str(message.text)] += 1
            assert set(shown) == set(texts)
            if lines == texts:
                break  # it came to the end before the chosen commit
            number += 1
            assert number < MOST_COMMITS
        assert number >= 3  # wished for, subscribed, taken in
