"""The gate, the secret scan and the flags, as typed."""

import pytest

from support.commands import Home, Relay


@pytest.fixture
def pair(relay: Relay, home: Home) -> tuple[str, str]:
    """Register a stranger, and somebody who hears contacts only."""
    stranger, guarded = (f"{each}-{abs(hash(home.path)) % 10**9}" for each in ("alice", "bobby"))
    home.run("register", "-a", stranger, "-u", stranger, "-s", relay.url).ok()
    home.run("register", "-a", guarded, "-u", guarded, "-s", relay.url, "--contact-policy", "contacts").ok()
    return stranger, guarded


def test_a_stranger_waits_is_accepted_verified_and_blocked(home: Home, pair: tuple[str, str]) -> None:
    stranger, guarded = pair
    home.run("send", "-a", stranger, "--to", guarded, "--no-reply", "-m", "let me in").ok()

    shown = home.run("wait", "-a", guarded, "--timeout", "30s").ok()
    assert "let me in" not in shown.text
    assert f"aimessage contacts --agent {guarded} accept {stranger}" in shown.text
    [waiting] = home.run("contacts", "list", "-a", guarded, "--json").ok().objects()
    assert (waiting["name"], waiting["contact"], waiting["requests"]) == (stranger, "pending", 1)

    [accepted] = home.run("contacts", "accept", stranger, "-a", guarded, "--json").ok().objects()
    assert (accepted["contact"], accepted["requests"]) == ("accepted", 0)
    [message] = home.run("wait", "-a", guarded, "--json", "--timeout", "30s").ok().objects()
    assert (message["text"], message["contact"], message["expects_reply"]) == ("let me in", "accepted", False)

    [identity] = home.run("whoami", "-a", stranger, "--json").ok().objects()
    verified = home.run("contacts", "verify", stranger, str(identity["address"]), "-a", guarded, "--json").ok()
    assert verified.objects()[0]["trust"] == "verified"
    wrong = home.run("contacts", "verify", stranger, f"{stranger}~{'a' * 52}", "-a", guarded, "--json")
    assert (wrong.code, wrong.failure()["error"]) == (6, "peer_identity_changed")

    home.run("contacts", "block", stranger, "-a", guarded).ok()
    refused = home.run("send", "-a", guarded, "--to", stranger, "-m", "hello", "--json")
    assert (refused.code, refused.failure()["error"]) == (5, "blocked")


def test_a_secret_is_refused_by_name_and_sent_when_it_is_meant(home: Home, pair: tuple[str, str]) -> None:
    stranger, guarded = pair
    text = ("send", "-a", stranger, "--to", guarded, "-m", "-", "--json")
    secret = b"-----BEGIN OPENSSH PRIVATE KEY-----"
    for flags in ((), ("--dry-run",)):
        refused = home.run(*text, *flags, stdin=secret)
        assert (refused.code, refused.failure()["error"]) == (5, "secret_found")
        assert "pem-private-key" in str(refused.failure()["message"])
    home.run(*text, "--allow-secrets", stdin=secret).ok()
