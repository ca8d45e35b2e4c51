"""stats and users as an operator types them, on a relay that runs."""

import json
import signal
import subprocess
from pathlib import Path

from aimessage.crypto.random import system_entropy
from aimessage.e2ee.prekeys import make_pairs
from aimessage.wire.frames import (
    Accepted,
    Bye,
    Done,
    FetchBundle,
    FetchState,
    ListUsers,
    Post,
    Proved,
    Refused,
    StateAnswer,
    StockPairs,
    StoreState,
    Users,
)
from support.commands import BIN, Home, Relay, operator, plainly, running_relay
from support.relay import Peer


def url_of(relay: Relay) -> str:
    return f"ws://127.0.0.1:{relay.port}"


async def users(relay: Relay) -> dict[str, dict[str, object]]:
    return {str(row["username"]): row for row in (await operator(relay, "users", "list")).ok().objects()}


async def mail(sender: Peer, to: str) -> Accepted | Refused:
    sender.send(Post(sender.next_id(), to, system_entropy(16), 0, 0, 0, b"sealed"))
    return await sender.expect(Accepted, Refused)


async def test_stats_tell_what_the_relay_has_done(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        async with Peer(url_of(relay), "alice") as alice:
            await alice.register()
            await mail(alice, "alice")
            await mail(alice, "nobody-here")
            (figures,) = (await operator(relay, "stats")).ok().objects()
        human = await plainly("stats", "--db-path", str(relay.db_path))

    assert figures["ready"] is True
    assert figures["connections"] == {"open": 1, "not_logged_in": 0, "ever": 1}
    assert figures["mailboxes"] == {"messages": 1, "bytes": 6}
    assert figures["messages"] == {
        "accepted": 1, "duplicate": 0, "delivered": 0, "acknowledged": 0, "refused": {"recipient_unknown": 1},
    }  # fmt: skip
    assert "accepted 1, duplicate 0" in human.text
    assert "alice" not in human.text


def test_watching_goes_on_until_it_is_interrupted(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        words = ("--log-format", "json", "stats", "--watch", "--every", "0.1", "--db-path", str(relay.db_path))
        with subprocess.Popen([BIN / "aimessage-server", *words], stdout=subprocess.PIPE) as watching:
            assert watching.stdout is not None
            lines = [json.loads(watching.stdout.readline()) for _ in range(3)]
            watching.send_signal(signal.SIGINT)
            assert watching.wait(timeout=60) == 0

    assert all(line["ready"] for line in lines)


async def test_no_relay_to_ask_is_a_sentence(tmp_path: Path) -> None:
    outcome = await plainly("stats", "--db-path", str(tmp_path))

    assert outcome.code == 1
    assert "no relay runs on" in outcome.talk


async def test_a_banned_agent_is_cut_off_and_stays_out_over_a_restart_until_it_is_unbanned(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        async with Peer(url_of(relay), "alice") as alice, Peer(url_of(relay), "bobby") as bobby:
            await alice.register()
            await bobby.register()
            await mail(bobby, "alice")
            (told,) = (await operator(relay, "users", "ban", "alice")).ok().objects()
            bye = await alice.expect(Bye)
            await alice.ended()
            bobby.send(FetchState(bobby.next_id()))
            await bobby.expect(StateAnswer)
        async with Peer(url_of(relay), "alice", alice.secret) as again:
            refused = await again.login()
        async with Peer(url_of(relay), "alice", alice.secret) as anew:
            refused_too = await anew.register()
    relay.log_path.unlink()  # the next one's port is read from its own
    with running_relay(tmp_path) as relay:
        async with Peer(url_of(relay), "alice", alice.secret) as after:
            refused_still = await after.login()
        async with Peer(url_of(relay), "alice") as stranger:
            nosy = await stranger.login()
        listed = await users(relay)
        (await operator(relay, "users", "unban", "alice")).ok()
        async with Peer(url_of(relay), "alice", alice.secret) as back:
            assert isinstance(await back.login(), Proved)

    assert told == {"username": "alice", "standing": "banned", "before": "good"}
    assert bye.code == "blocked"
    for refusal in (refused, refused_too, refused_still):
        assert isinstance(refusal, Refused)
        assert refusal.code == "blocked"
    assert isinstance(nosy, Refused)
    assert nosy.code == "proof_rejected"  # who does not hold the key learns nothing of the ban
    assert listed["alice"] == {
        "username": "alice", "standing": "banned", "online": False, "messages": 1, "bytes": 6,
    }  # fmt: skip


async def test_a_removed_agent_leaves_nothing_but_a_name_that_nobody_gets(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        async with Peer(url_of(relay), "alice") as alice, Peer(url_of(relay), "bobby") as bobby:
            await alice.register()
            await bobby.register()
            pairs = make_pairs(alice.account, vault_id=alice.vault_id, count=2, entropy=system_entropy)
            alice.send(StockPairs(alice.next_id(), [pair.encode() for pair, _ in pairs]))
            await alice.expect(Done)
            alice.send(StoreState(alice.next_id(), 1, b"state"))
            await alice.expect(Done)
            await mail(bobby, "alice")
            hasty = await operator(relay, "users", "remove", "alice")
            (await operator(relay, "users", "remove", "alice", "--yes")).ok()
            await alice.ended()
            refused = await mail(bobby, "alice")
            bobby.send(FetchBundle(bobby.next_id(), "alice"), ListUsers(bobby.next_id(), everyone=True))
            unknown = await bobby.expect(Refused)
            names = [row.username for row in (await bobby.expect(Users)).rows]
        async with Peer(url_of(relay), "alice", alice.secret) as same:
            same_key = await same.register()
        async with Peer(url_of(relay), "alice") as other:
            other_key = await other.register()
        unbanned = await operator(relay, "users", "unban", "alice")
        (figures,) = (await operator(relay, "stats")).ok().objects()
        verified = await operator(relay, "verify")

    assert hasty.code == 2
    assert isinstance(refused, Refused)
    assert (refused.code, unknown.code) == ("recipient_unknown", "recipient_unknown")
    assert names == ["bobby"]
    assert isinstance(same_key, Refused)
    assert isinstance(other_key, Refused)
    assert (same_key.code, other_key.code) == ("blocked", "username_taken")
    assert unbanned.code == 2
    assert figures["mailboxes"] == {"messages": 0, "bytes": 0}
    verified.ok()


async def test_only_who_is_registered_can_be_banned(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        outcome = await operator(relay, "users", "ban", "nobody-here")

    assert outcome.code == 1
    assert outcome.failure()["error"] == "recipient_unknown"


def test_a_banned_agent_is_told_so_by_its_own_command(tmp_path: Path) -> None:
    with running_relay(tmp_path / "relay") as relay:
        home = Home(tmp_path / "home")
        home.run("register", "--username", "alice", "--server", relay.url).ok()
        subprocess.run(
            [BIN / "aimessage-server", "users", "ban", "alice", "--db-path", relay.db_path], check=True, timeout=60
        )
        outcome = home.run("--json", "users", "--all")

    assert outcome.code != 0
    assert json.loads(outcome.talk.splitlines()[-1])["error"] == "blocked"
