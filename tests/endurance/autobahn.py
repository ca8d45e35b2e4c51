"""RFC 6455 as the Autobahn suite tests it: groups 1 to 7, 9 and 10 against the relay's WebSocket transport.

    python tests/endurance/autobahn.py [--wstest PATH] [--cases 1.*,2.*]

The suite needs a Python 2.7; with one, this makes it:

    pip install virtualenv==20.21.1 && virtualenv -p python2.7 /tmp/autobahn
    /tmp/autobahn/bin/pip install autobahntestsuite
    python tests/endurance/autobahn.py --wstest /tmp/autobahn/bin/wstest

It runs twice. Once against the transport *as it is*: a case may only fail because the relay takes no text (closed
with 1003) or nothing above 1 MiB (1009). Once with *text let through* and a bound of 16 MiB, so that those rules hide
nothing else: a case may only fail for text that is not UTF-8, at which the relay never looks as it takes none. In both,
a second close frame in one segment with the first is answered with 1002; the suite wants the first answered (7.1.2).
"""  # fmt: skip

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from endurance.echoing import echoing
from endurance.relays import say

__all__ = ["Outcome", "conformance", "count_groups", "find_suite"]

GROUPS = ("1", "2", "3", "4", "5", "6", "7", "9", "10")
_AS_IT_IS, _TEXT_TOO = "as it is", "text let through"
_GOOD = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})
_PROTOCOL_ERROR, _NO_TEXT, _TOO_LARGE = 1002, 1003, 1009
_SECOND_CLOSE = "7.1.2"
_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the suite says of one case."""

    agent: str
    case: str
    behavior: str
    close_behavior: str
    close_code: int | None

    @property
    def group(self) -> str:
        """The first number of the case."""
        return self.case.partition(".")[0]

    @property
    def passed(self) -> bool:
        """Whether the suite is content with what was said and with how it ended."""
        return self.behavior in _GOOD and self.close_behavior in _GOOD

    @property
    def waiver(self) -> str | None:
        """The name of the rule of ours that fails this case, None if there is none."""
        if self.case == _SECOND_CLOSE and self.close_code == _PROTOCOL_ERROR:
            return "second close"
        if self.agent == _AS_IT_IS:
            return {_NO_TEXT: "no text", _TOO_LARGE: "over 1 MiB"}.get(self.close_code or 0)
        return "text not judged" if self.group == "6" else None


def find_suite(given: str | None) -> str | None:
    """Return the path of `wstest`, None if there is none."""
    return shutil.which(given or "wstest")


async def conformance(suite: str, directory: Path, cases: list[str]) -> list[Outcome]:
    """Run the suite's *cases* against both servers and return what it says of each."""
    async with echoing(as_it_is=True) as strict, echoing(as_it_is=False) as open_to_text:
        spec = directory / "spec.json"
        servers = [{"agent": _AS_IT_IS, "url": strict}, {"agent": _TEXT_TOO, "url": open_to_text}]
        spec.write_text(  # once, before anything runs
            json.dumps(
                {
                    "options": {"failByDrop": False},
                    "outdir": str(directory),
                    "servers": servers,
                    "cases": cases,
                    "exclude-cases": [],
                    "exclude-agent-cases": {},
                }
            )
        )
        process = await asyncio.create_subprocess_exec(
            suite, "-m", "fuzzingclient", "-s", str(spec), stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_SECONDS):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    return _read(json.loads((directory / "index.json").read_text()))


def _read(index: Mapping[str, Mapping[str, Mapping[str, object]]]) -> list[Outcome]:
    outcomes = []
    for agent, cases in index.items():
        for case, found in cases.items():
            code = found["remoteCloseCode"]
            outcomes.append(
                Outcome(
                    agent, case, str(found["behavior"]), str(found["behaviorClose"]),
                    code if isinstance(code, int) else None,
                )
            )  # fmt: skip
    return outcomes


def count_groups(outcomes: list[Outcome], agent: str) -> dict[str, Counter[str]]:
    """Return, for each group, how many cases passed, failed, or failed under which waiver."""
    counts: dict[str, Counter[str]] = {group: Counter() for group in GROUPS}
    for outcome in outcomes:
        if outcome.agent == agent:
            counts[outcome.group][_verdict(outcome)] += 1
    return counts


def _verdict(outcome: Outcome) -> str:
    if outcome.passed:
        return "passed" if outcome.behavior != "NON-STRICT" else "passed (not strict)"
    return outcome.waiver or "failed"


def main() -> int:
    """Run the suite if there is one; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wstest")
    parser.add_argument("--cases", default=",".join(f"{group}.*" for group in GROUPS))
    given = parser.parse_args()
    suite = find_suite(given.wstest)
    if suite is None:
        say("autobahn: not run: no wstest was found; it needs a Python 2.7, see --help for the commands that make it")
        return 1
    with tempfile.TemporaryDirectory() as directory:
        outcomes = uvloop.run(conformance(suite, Path(directory), given.cases.split(",")))
    for agent in (_AS_IT_IS, _TEXT_TOO):
        say(f"  {agent}")
        for group, counts in count_groups(outcomes, agent).items():
            if counts:
                say(f"    group {group:>2}: {', '.join(f'{verdict} {n}' for verdict, n in sorted(counts.items()))}")
    bad = [outcome for outcome in outcomes if _verdict(outcome) == "failed"]
    for outcome in bad:
        say(f"  failed: {outcome}")
    waived = Counter(_verdict(outcome) for outcome in outcomes if not outcome.passed and outcome.waiver)
    say(
        f"autobahn: {len(outcomes)} cases, passed {sum(outcome.passed for outcome in outcomes)}, "
        f"waived {dict(waived)}, failed {len(bad)}"
    )
    return 1 if bad or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
