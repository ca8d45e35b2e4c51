"""backup, verify and restore as an operator types them: real commands beside a real relay."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

from aimessage.crypto.random import system_entropy
from aimessage.e2ee.prekeys import make_pairs
from aimessage.relay.admin import dial
from aimessage.wire.frames import (
    Accepted,
    Ack,
    Acknowledge,
    BundleAnswer,
    CaughtUp,
    Deliver,
    Done,
    FetchBundle,
    Post,
    Proved,
    StockPairs,
)
from support.commands import BIN, Outcome, Relay, running_relay
from support.relay import Peer
from support.stores import flip_where, tree


def operator(*words: str, **environ: str) -> Outcome:
    """Run `aimessage-server` with *words* to its end."""
    plain = {key: value for key, value in os.environ.items() if key not in ("DB_PATH", "LOG_FORMAT")}
    done = subprocess.run(
        [BIN / "aimessage-server", *words], capture_output=True, env=plain | environ, timeout=60, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def url_of(relay: Relay) -> str:
    return f"ws://127.0.0.1:{relay.port}"


async def registered(relay: Relay, *names: str) -> dict[str, bytes]:
    """Register each name; return their secrets."""
    secrets: dict[str, bytes] = {}
    for name in names:
        async with Peer(url_of(relay), name) as peer:
            assert isinstance(await peer.register(), Proved)
            secrets[name] = peer.secret
    return secrets


async def posted(relay: Relay, secret: bytes, to: str, *bodies: bytes) -> None:
    """Post *bodies* as alice; they are acknowledged when this returns."""
    async with Peer(url_of(relay), "alice", secret) as alice:
        await alice.login()
        for body in bodies:
            alice.send(Post(alice.next_id(), to, os.urandom(16), 0, 0, 0, body))
            await alice.expect(Accepted)


NO_SHARE = ("--mailbox-sender-share", "0")


async def crowd_out(relay: Relay, secrets: dict[str, bytes]) -> None:
    """Fill what the relay keeps at hand of fresh mail, so that what came before has to be read from the disk."""
    secrets |= await registered(relay, "zoe")
    await posted(relay, secrets["alice"], "zoe", *[os.urandom(60_000)] * 290)


async def mail_of(relay: Relay, name: str, secret: bytes, generation: int = 1) -> list[bytes]:
    async with Peer(url_of(relay), name, secret) as peer:
        await peer.login()
        await peer.subscribe(generation)
        await peer.expect(CaughtUp)
        return [frame.sealed for frame in peer.frames if isinstance(frame, Deliver)]


async def test_a_backup_of_a_running_relay_is_a_relay_again(tmp_path: Path) -> None:
    backup, restored = tmp_path / "backup", tmp_path / "second" / "data"
    with running_relay(tmp_path / "first") as relay:
        secrets = await registered(relay, "alice", "bobby")
        await posted(relay, secrets["alice"], "bobby", b"one", b"two")
        made = operator("--db-path", str(relay.db_path), "backup", str(backup)).ok()
        await posted(relay, secrets["alice"], "bobby", b"too late")
        assert await mail_of(relay, "bobby", secrets["bobby"]) == [b"one", b"two", b"too late"]
        assert not (relay.db_path / "snapshot").exists()
    assert "1 mailboxes, 2 messages, 2 accounts" in made.text

    told = operator("restore", str(backup), "--db-path", str(restored)).ok()
    with running_relay(tmp_path / "second") as relay:
        assert await mail_of(relay, "bobby", secrets["bobby"]) == [b"one", b"two"]

    assert "2 messages" in told.text
    for promise in ("accepted after the backup", "delivered again", "registered after", "one-time pairs"):
        assert promise in told.talk


async def test_a_pair_that_was_stocked_before_the_backup_is_not_served_after_a_restore(tmp_path: Path) -> None:
    with running_relay(tmp_path / "first") as relay:
        async with Peer(url_of(relay), "bobby") as bobby:
            await bobby.register()
            pairs = make_pairs(bobby.account, vault_id=bobby.vault_id, count=2, entropy=system_entropy)
            bobby.send(StockPairs(bobby.next_id(), [pair.encode() for pair, _ in pairs]))
            assert (await bobby.expect(Done)).count == 2
        operator("backup", str(tmp_path / "backup"), "--db-path", str(relay.db_path)).ok()
    operator("restore", str(tmp_path / "backup"), DB_PATH=str(tmp_path / "second" / "data")).ok()

    with running_relay(tmp_path / "second") as relay:
        async with Peer(url_of(relay), "bobby", bobby.secret) as again:
            proved = await again.login()
            again.send(FetchBundle(again.next_id(), "bobby"))
            answer = await again.expect(BundleAnswer)

    assert isinstance(proved, Proved)
    assert proved.pairs == 0
    assert answer.pair == b""
    assert answer.bundle


async def test_a_stopped_relay_is_backed_up_and_verified_without_a_change(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        secrets = await registered(relay, "alice", "bobby")
        await posted(relay, secrets["alice"], "bobby", b"kept")
        assert relay.stop() == 0
        before = tree(relay.db_path)
        verified = operator("verify", "--db-path", str(relay.db_path)).ok()
        assert tree(relay.db_path) == before
        operator("--db-path", str(relay.db_path), "backup", str(tmp_path / "backup")).ok()
        before = tree(tmp_path / "backup")
        again = operator("verify", str(tmp_path / "backup"), LOG_FORMAT="json").ok()

    assert "verified:" in verified.text
    assert "1 messages" in verified.text
    assert json.loads(again.text) == {
        "event": "verified", "path": str(tmp_path / "backup"), "mailboxes": 1, "messages": 1, "accounts": 2,
        "damaged": [], "damages": [],
    }  # fmt: skip
    assert tree(tmp_path / "backup") == before


async def test_damage_under_a_running_relay_is_named_by_verify_and_ends_the_relay_when_it_is_read(
    tmp_path: Path,
) -> None:
    body = os.urandom(30_000)
    with running_relay(tmp_path, *NO_SHARE) as relay:
        secrets = await registered(relay, "alice", "bobby", "carol")
        await posted(relay, secrets["alice"], "carol", os.urandom(30_000), os.urandom(30_000))
        await posted(relay, secrets["alice"], "bobby", os.urandom(30_000), body, os.urandom(30_000))
        await crowd_out(relay, secrets)
        operator("--db-path", str(relay.db_path), "backup", str(tmp_path / "backup")).ok()  # all is in tables now
        flip_where(relay.db_path, body)

        verdict = operator("--db-path", str(relay.db_path), "verify")
        refused = operator("--db-path", str(relay.db_path), "backup", str(tmp_path / "late"))
        assert len(await mail_of(relay, "carol", secrets["carol"])) == 2
        async with Peer(url_of(relay), "bobby", secrets["bobby"]) as bobby:
            await bobby.login()
            await bobby.subscribe()
            await bobby.ended()
        code = await asyncio.to_thread(relay.process.wait, 30)

    assert (verdict.code, refused.code) == (1, 1)
    assert "bobby" in verdict.talk
    assert "carol" not in verdict.talk + verdict.text
    assert not (tmp_path / "late").exists()
    assert code == 1
    told = relay.log_path.read_text()
    assert "the mailbox of bobby cannot be read" in told
    assert "hint: stop the relay and restore the last backup" in told
    assert "Traceback" not in told
    again = operator("--db-path", str(relay.db_path), "--port", "0")
    assert again.code == 1
    assert "the mailbox of bobby cannot be read" in again.talk
    operator("verify", str(tmp_path / "backup")).ok()


async def test_damage_that_an_acknowledgement_meets_ends_the_relay_too(tmp_path: Path) -> None:
    body = os.urandom(30_000)
    with running_relay(tmp_path, "--log-format", "json", *NO_SHARE) as relay:
        secrets = await registered(relay, "alice", "bobby")
        await posted(relay, secrets["alice"], "bobby", os.urandom(30_000), body, os.urandom(30_000))
        await crowd_out(relay, secrets)
        async with Peer(url_of(relay), "bobby", secrets["bobby"]) as bobby:
            await bobby.login()
            await bobby.subscribe()
            [_, delivery, _] = [await bobby.expect(Deliver) for _ in range(3)]
            operator("--db-path", str(relay.db_path), "backup", str(tmp_path / "backup")).ok()
            flip_where(relay.db_path, body)
            bobby.send(Acknowledge(delivery.subscription, [Ack(delivery.position, delivery.message_id)]))
            code = await asyncio.to_thread(relay.process.wait, 30)

    assert code == 1
    failures = [json.loads(line) for line in relay.log_path.read_text().splitlines()]
    assert [line["error"] for line in failures if line["event"] == "failed"] == ["store_damaged"]
    assert all("bobby" in line["message"] for line in failures if line["event"] == "failed")


async def test_damage_that_a_repeated_post_meets_ends_the_relay_too(tmp_path: Path) -> None:
    with running_relay(tmp_path, *NO_SHARE) as relay:
        secrets = await registered(relay, "alice", "bobby")
        async with Peer(url_of(relay), "alice", secrets["alice"]) as alice:
            await alice.login()
            post = Post(alice.next_id(), "bobby", os.urandom(16), 0, 0, 0, os.urandom(30_000))
            alice.send(post)
            await alice.expect(Accepted)
            await crowd_out(relay, secrets)
            operator("--db-path", str(relay.db_path), "backup", str(tmp_path / "backup")).ok()
            flip_where(relay.db_path, post.message_id)
            alice.send(post)
            code = await asyncio.to_thread(relay.process.wait, 30)

    assert code == 1
    assert "the mailbox of bobby cannot be read" in relay.log_path.read_text()


async def test_restore_leaves_a_store_alone_and_says_what_to_do(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        operator("--db-path", str(relay.db_path), "backup", str(tmp_path / "backup")).ok()
        busy = operator("--db-path", str(relay.db_path), "restore", str(tmp_path / "backup"))
        inside = operator("verify", str(relay.db_path))

    assert busy.code == inside.code == 2
    assert "not empty" in busy.talk
    assert "hint: move it away first" in busy.talk
    assert "a relay runs on the store" in inside.talk


def test_what_is_no_backup_is_a_sentence_and_a_hint(tmp_path: Path) -> None:
    for words in (("verify", "x"), ("restore", "x"), ("backup", "y"), ("verify",)):
        outcome = operator("--db-path", str(tmp_path / "data"), *words)
        assert outcome.code == 2
        assert "there is no store in" in outcome.talk
        assert "hint: " in outcome.talk
    assert list(tmp_path.iterdir()) == []


async def test_a_backup_command_that_is_killed_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        line = dial(relay.db_path)
        assert line is not None
        name = str((await asyncio.to_thread(line.ask, "snapshot"))["name"])
        assert (relay.db_path / name / "CURRENT").exists()
        line.close()
        async with asyncio.timeout(60):
            while (relay.db_path / name).exists():  # noqa: ASYNC110 - another process removes it
                await asyncio.sleep(0.02)


async def test_a_store_that_lost_its_end_is_refused_by_a_paranoid_relay(tmp_path: Path) -> None:
    with running_relay(tmp_path, "--paranoid-durability") as relay:
        secrets = await registered(relay, "alice", "bobby")
        await posted(relay, secrets["alice"], "bobby", *(b"%d" % value for value in range(20)))
        relay.process.kill()
        relay.process.wait()
    [log] = (path for path in relay.db_path.glob("*.log") if path.stat().st_size)
    os.truncate(log, log.stat().st_size // 2)

    again = operator("--db-path", str(relay.db_path), "--port", "0", PARANOID_DURABILITY="1")

    assert again.code == 1
    assert "changes are missing" in again.talk
    assert "hint: restore the last backup" in again.talk
