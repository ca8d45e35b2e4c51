"""Who may register: invitations as an operator makes them and as an agent uses them, on a relay that runs."""

import json
from pathlib import Path

import pytest

from aimessage.wire.frames import Proved, Refused
from support.commands import Home, Relay, operator, plainly, running_relay
from support.relay import Peer

BY_INVITATION = ("--registration", "invite")


async def made(relay: Relay, *words: str) -> dict[str, object]:
    """Return a new invitation with its code."""
    (row,) = (await operator(relay, "invite", "create", *words)).ok().objects()
    return row


async def listed(relay: Relay) -> list[dict[str, object]]:
    return (await operator(relay, "invite", "list")).ok().objects()


async def verdict(relay: Relay, name: str, invite: str = "", secret: bytes | None = None) -> str:
    """Return the code that a registration is refused with, "" if it is not."""
    async with Peer(f"ws://127.0.0.1:{relay.port}", name, secret) as peer:
        answer = await peer.register(invite=invite)
    return answer.code if isinstance(answer, Refused) else ""


async def test_who_shows_an_invitation_gets_in_as_often_as_it_says_and_nobody_else_does(tmp_path: Path) -> None:
    with running_relay(tmp_path, *BY_INVITATION) as relay:
        invitation = await made(relay, "--uses", "2", "--label", "for the planners")
        code = str(invitation["code"])
        verdicts = [
            await verdict(relay, "alice"),
            await verdict(relay, "alice", "aimi1-guess"),
            await verdict(relay, "alice", f" {code.upper()}\n"),
            await verdict(relay, "alice", code),  # another key: it loses the name, and costs nothing
            await verdict(relay, "bobby", code),
            await verdict(relay, "carol", code),
        ]
        (row,) = await listed(relay)
        log = relay.log_path.read_text()

    assert verdicts == ["invite_needed", "invite_refused", "", "username_taken", "", "invite_refused"]
    assert (row["label"], row["uses"], row["used"], row["over"]) == ("for the planners", 2, 2, True)
    assert row["id"] == invitation["id"]
    assert code.removeprefix("aimi1-") not in json.dumps(row) + log
    assert all(code.encode() not in file.read_bytes() for file in relay.db_path.rglob("*") if file.is_file())


async def test_who_is_registered_needs_no_invitation_to_log_in_or_to_repeat_its_registration(tmp_path: Path) -> None:
    with running_relay(tmp_path, *BY_INVITATION) as relay:
        code = str((await made(relay, "--uses", "2"))["code"])
        async with Peer(f"ws://127.0.0.1:{relay.port}", "alice") as alice:
            await alice.register(invite=code)
        again = [await verdict(relay, "alice", invite, alice.secret) for invite in ("", code, "nonsense")]
        async with Peer(f"ws://127.0.0.1:{relay.port}", "alice", alice.secret) as back:
            logged_in = await back.login()
        (row,) = await listed(relay)

    assert again == ["", "", ""]
    assert isinstance(logged_in, Proved)
    assert row["used"] == 1


async def test_a_revoked_invitation_lets_nobody_in(tmp_path: Path) -> None:
    with running_relay(tmp_path, *BY_INVITATION) as relay:
        invitation = await made(relay)
        (await operator(relay, "invite", "revoke", str(invitation["id"]))).ok()
        again = await operator(relay, "invite", "revoke", str(invitation["id"]))
        refused = await verdict(relay, "alice", str(invitation["code"]))
        left = await listed(relay)

    assert (again.code, again.failure()["error"]) == (1, "not_found")
    assert refused == "invite_refused"
    assert left == []


async def test_a_closed_relay_registers_nobody_and_lets_its_own_in(tmp_path: Path) -> None:
    with running_relay(tmp_path) as relay:
        async with Peer(f"ws://127.0.0.1:{relay.port}", "alice") as alice:
            await alice.register()
        note = (await plainly("invite", "create", "--db-path", str(relay.db_path))).ok()
    relay.log_path.unlink()  # the next one's port is read from its own
    with running_relay(tmp_path, "--registration", "closed") as relay:
        code = str((await made(relay))["code"])
        verdicts = [await verdict(relay, name, code) for name in ("alice", "bobby")]
        again = await verdict(relay, "alice", "", alice.secret)

    assert "asks for no invitation" in note.talk
    assert verdicts == ["registration_closed", "registration_closed"]  # the name being taken or free
    assert again == ""


async def test_only_the_code_is_on_stdout(tmp_path: Path) -> None:
    with running_relay(tmp_path, *BY_INVITATION) as relay:
        outcome = (await plainly("invite", "create", "--ttl", "12h", "--db-path", str(relay.db_path))).ok()
        listing = (await plainly("invite", "list", "--db-path", str(relay.db_path))).ok()
        (row,) = await listed(relay)
        refused = await verdict(relay, "alice", outcome.text.strip())

    assert outcome.text.startswith("aimi1-")
    assert len(outcome.text.strip()) == len("aimi1-") + 32  # 160 bits
    assert str(row["id"]) in listing.text
    assert "used 0 of 1" in listing.text
    assert refused == ""


@pytest.mark.parametrize("words", [("--uses", "0"), ("--ttl", "soon"), ("--ttl", "9999d"), ("--label", "x" * 65)])
async def test_an_impossible_invitation_is_refused_with_a_sentence(tmp_path: Path, words: tuple[str, str]) -> None:
    with running_relay(tmp_path, *BY_INVITATION) as relay:
        outcome = await operator(relay, "invite", "create", *words)
        kept = await listed(relay)

    assert (outcome.code, outcome.failure()["error"]) == (2, "bad_value")
    assert kept == []


async def test_an_agent_registers_with_a_file_with_standard_input_or_with_the_environment(tmp_path: Path) -> None:
    with running_relay(tmp_path / "relay", *BY_INVITATION) as relay:
        file = tmp_path / "invitation"
        file.write_text(str((await made(relay, "--uses", "3"))["code"]) + "\n")

        def registered(name: str, *words: str, stdin: bytes = b"", **environ: str) -> tuple[int, str]:
            home = Home(tmp_path / name)
            command = ("--json", "register", "--username", name, "--server", relay.url, *words)
            outcome = home.run(*command, stdin=stdin, **environ)
            return outcome.code, str(outcome.failure()["error"]) if outcome.code else ""

        outcomes = [
            registered("alice"),
            registered("alice", "--invite-file", str(file)),  # goes on with what the refused one began
            registered("bobby", "--invite-file", "-", stdin=file.read_bytes()),
            registered("carol", AIMESSAGE_INVITE=file.read_text()),
            registered("david", "--invite-file", str(file)),
            registered("erika", "--invite-file", "-"),
        ]
        uses = [row["used"] for row in await listed(relay)]

    needed, *good, used_up, empty = outcomes
    assert needed == (5, "invite_needed")
    assert good == [(0, "")] * 3
    assert used_up == (5, "invite_refused")
    assert empty == (2, "bad_value")
    assert uses == [3]
