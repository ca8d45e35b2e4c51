"""The examples, run as a reader would: each by itself, from the command line. And the first block of docs/sdk.md."""

import ast
import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aimessage.testing import Network

ROOT = Path(__file__).parents[2]
SAID = {
    "divide_work": ["ben:  ada gives me 51 to 100", "both: 25 primes up to 100"],
    "request_reply": ["26.218", "use one of km, m, mile", "send {value, from, to}"],
    "supervisor": [
        "the worker ended with 9; another takes its place",
        "index, which somebody may have begun",
        "fetch handled, index handled, compress handled, upload handled",
    ],
}


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_an_example_does_what_it_says(name: str) -> None:
    path = ROOT / "examples" / f"{name}.py"
    done = subprocess.run([sys.executable, path], check=False, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    for words in SAID[name]:
        assert words in done.stdout
    assert len(path.read_text().splitlines()) <= 80


def first_block(page: str) -> str:
    """The first Python block of a page of the documentation."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


async def test_the_first_block_of_the_sdks_page_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Network() as network:
        planner, first, second = [await network.join(name) for name in ("planner", "worker-1", "worker-2")]
        planner.close()
        for name, value in network.environ.items():
            monkeypatch.setenv(name, value)
        code = compile(first_block("sdk.md"), "sdk.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = asyncio.ensure_future(eval(code, {}))  # our own page
        [task] = await first.wait(timeout=60)
        assert (task.text, task.thread) == ("please index /data", "t-7")
        [question] = await second.wait(timeout=60)
        await question.reply("all is well")
        assert (await first.ask("planner", "and now?", timeout=60)).text == "done"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
