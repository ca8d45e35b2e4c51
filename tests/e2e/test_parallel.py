"""Many processes of one agent at once: no lost update, no repeated counter, one session."""

import re

from aimessage.client.account import open_here
from aimessage.client.config import Settings
from aimessage.client.profile import load_profile
from aimessage.types import Username
from support.commands import Home, Relay

PROCESSES = 12


def test_twelve_processes_that_send_at_once_make_one_session_and_lose_nothing(relay: Relay, home: Home) -> None:
    for name in ("swarm-a", "swarm-b"):
        home.run("register", "-a", name, "-u", name, "-s", relay.url).ok()

    sends = [home.start("send", "-a", "swarm-a", "-t", "swarm-b", "-m", f"n{at}") for at in range(PROCESSES)]
    for process in sends:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, (out, err)

    heard = home.run("listen", "-a", "swarm-b", "-C", str(PROCESSES), "-W", "60s").ok().text
    assert sorted(re.findall(r"n(\d+)$", heard, re.MULTILINE), key=int) == [str(at) for at in range(PROCESSES)]
    here, there = (
        open_here(load_profile(Settings(home=home.path, agent=name)), None) for name in ("swarm-a", "swarm-b")
    )
    try:
        with there.vault.reading() as vault:  # what one process found waiting left together
            (envelopes,) = vault.run("SELECT count(DISTINCT coalesce(envelope, id)) FROM inbox").fetchone()
        with here.vault.reading() as vault:
            (session,) = vault.peer(here.address(Username("swarm-b"))).conversation.sessions
            assert session.ratchet.sent == envelopes <= PROCESSES  # each envelope took a counter of its own
    finally:
        here.vault.close()
        there.vault.close()
