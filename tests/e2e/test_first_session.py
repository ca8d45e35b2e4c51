"""A new agent's first session, with nothing but `aimessage --help`: each step, and what it costs to read.

A token is taken to be four characters, both of what is typed and of what comes back. `-s` prints the table.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from support.commands import Home, running_relay

MOST_TOKENS = {"--help": 700, "inbox": 200, "history": 200}
ANY_STEP = 150


@dataclass
class Session:
    """What one agent types, and its price."""

    home: Home
    agent: str
    steps: list[tuple[str, int]] = field(default_factory=list)

    def types(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """Run one command and put down what it cost."""
        outcome = self.home.run(*arguments, stdin=stdin.encode(), AIMESSAGE_AGENT=self.agent)
        assert outcome.code == code, outcome
        typed = f"aimessage {' '.join(arguments)} {stdin}"
        cost = -(-(len(typed) + len(outcome.text) + len(outcome.talk)) // 4)
        self.steps.append((f"{self.agent}: aimessage {' '.join(arguments)[:60]}", cost))
        assert cost <= MOST_TOKENS.get(arguments[0], ANY_STEP), self.steps[-1]
        return outcome.text


def test_a_new_agent_finds_its_way_for_little(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    planner, worker = Session(home, "planner"), Session(home, "worker")
    with running_relay(tmp_path / "relay") as relay:
        told = planner.types("--help")
        assert all(f"  {command} " in told for command in ("register", "ask", "inbox", "send", "users", "wait"))
        planner.types("register", "-u", "planner", "-s", relay.url)
        worker.types("register", "-u", "worker-1", "-s", relay.url, "--contact-policy", "contacts")
        assert "worker-1" in planner.types("users", "--all")
        planner.types("send", "-t", "worker-1", "--thread", "t-1", "-m", "-", stdin="what is the size of /data?")
        assert "what is the size" not in worker.types("inbox")  # a stranger's words wait for the worker's
        assert "planner" in worker.types("contacts", "list")
        worker.types("contacts", "accept", "planner")
        listed = worker.types("inbox", "--render", "fenced")
        message_id = listed.split('id: "')[1][:26]
        worker.types("send", "-t", "planner", "--reply-to", message_id, "--thread", "t-1", "-m", "-", stdin="17 GiB")
        assert "17 GiB" in planner.types("wait", "--timeout", "30s")
        with ThreadPoolExecutor(1) as meanwhile:
            asking = meanwhile.submit(planner.types, "ask", "-t", "worker-1", "-m", "and of /home?", "--timeout", "90s")
            listed = worker.types("wait", "--timeout", "60s", "--render", "fenced")
            message_id = listed.split('id: "')[1][:26]
            worker.types("send", "-t", "planner", "--reply-to", message_id, "-m", "-", stdin="3 GiB")
            assert "3 GiB" in asking.result()
        long_list = tmp_path / "list.txt"
        long_list.write_text("the list: " + "name, " * 3_000)
        worker.types("send", "-t", "planner", "--file", str(long_list))
        planner.types("inbox", "--max-chars", "1200")
        relay.stop()
        planner.types("send", "-t", "worker-1", "-m", "are you there?", "--timeout", "1s", code=75)
    with running_relay(tmp_path / "relay", "--port", str(relay.port)):
        planner.types("send", "-t", "worker-1", "-m", "back again", "--timeout", "30s")
        listed = worker.types("inbox")
        assert "are you there?" in listed and "back again" in listed
        message_id = planner.types("history", "--limit", "3", "--max-chars", "1200").rpartition("(id ")[2][:26]
        planner.types("status", message_id)

    for step, cost in (*planner.steps, *worker.steps):
        print(f"{cost:5}  {step}")  # noqa: T201 - the table that this test is asked for
    assert sum(cost for _, cost in (*planner.steps, *worker.steps)) < 2_000
