"""Run the measurements in interleaved rounds, and tell, store or draw what came out."""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import agents, commands, core, floors, growth, links, million, stores
from benchmarks.figures import Sample, collect, save, table
from benchmarks.plots import plot, plot_curves

MEASURES: dict[str, Callable[[Path], Iterator[Sample]]] = {
    "floors": lambda _: floors.floors(),
    "core": core.core,
    "send": commands.send,
    "looks": commands.looks,
    "pingpong": agents.pingpong,
    "sessions": agents.sessions,
    "pair": partial(agents.throughput, pairs=1, count=20_000, bar=10_000),
    "pairs": partial(agents.throughput, pairs=50, count=20_000, bar=15_000),
    "pair-all": partial(agents.throughput, pairs=1, count=20_000, bar=10_000, role="send_all"),
    "pairs-all": partial(agents.throughput, pairs=50, count=20_000, bar=15_000, role="send_all"),
    "backlog": agents.backlog,
    "relay50": partial(links.relay, links=50, seconds=4, bar=75_000),
    "relay500": partial(links.relay, links=500, seconds=4, bar=45_000),
    "relay1000": partial(links.relay, links=1_000, seconds=4, bar=30_000),
    "idle": links.idle,
    "tls": links.tls,
    "million": million.million,
    "stores": stores.stores,
}
CURVES: dict[str, Callable[[Path], Iterator[Sample]]] = {
    "connections": growth.connections,
    "mailbox": growth.backlog,
    "mailboxes": growth.mailboxes,
    "history": growth.history,
}


def main() -> int:
    """Return 0; 1 if a bar that was measured is missed and --strict was given."""
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__)
    parser.add_argument("--only", default=",".join(MEASURES), help="measures, with commas between")
    parser.add_argument("--growth", action="store_true", help="measure how figures grow, instead")
    parser.add_argument("--list", action="store_true", help="tell the measures and end")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw them as SVG")
    parser.add_argument("--against", metavar="COMMIT", help="measure another commit too, round by round")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a bar is missed")
    parser.add_argument("--as-json", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # ours, the relays' and the loads': ten thousand links
    if given.list:
        sys.stdout.write("".join(f"{name}\n" for name in MEASURES | CURVES))
        return 0
    if given.growth:
        given.only = ",".join(CURVES)
    names = ["floors", *(name for name in given.only.split(",") if name != "floors")]
    unknown = [name for name in names if name not in MEASURES | CURVES]
    if unknown:
        parser.error(f"there is no measure {unknown[0]}: bench.sh --list")
    if given.against:
        return _compare(given.against, names, given.rounds)
    figures = collect(_rounds(names, given.rounds))
    sys.stdout.write(table(figures) + "\n")
    if given.save:
        save(given.save, figures)
    if given.plots and given.growth:
        plot_curves(given.plots / "growth.svg", "Growth, as multiples of the first point", figures)
    elif given.plots:
        for unit, title in (("msg/s", "Throughput"), ("ms", "Latency"), ("µs", "Cryptography")):
            chosen = [each for each in figures if each.unit == unit]
            plot(given.plots / f"{title.lower()}.svg", title, chosen)
    return int(given.strict and any(each.reached is False for each in figures))


def _rounds(names: list[str], rounds: int) -> Iterator[Sample]:
    for number in range(rounds):
        for name in names:
            sys.stderr.write(f"round {number + 1} of {rounds}: {name}\n")
            with tempfile.TemporaryDirectory(prefix="aimessage-bench-") as directory:
                yield from (MEASURES | CURVES)[name](Path(directory))


def _compare(commit: str, names: list[str], rounds: int) -> int:
    """Measure *commit* and the working tree in turn, so that a noisy minute meets both."""
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory(prefix="aimessage-other-") as directory:
        other = Path(directory) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(other), commit], cwd=root, check=True)
        try:
            found: dict[str, list[Sample]] = {"ours": [], "theirs": []}
            for _ in range(rounds):
                for side, tree in (("ours", root), ("theirs", other)):
                    found[side] += _measured_in(tree, names, Path(directory) / "samples.json")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(other)], cwd=root, check=True)
    theirs = {each.name: each for each in collect(found["theirs"])}
    lines = [f"| figure | {commit} | this tree | ratio |", "|---|---|---|---|"]
    for each in collect(found["ours"]):
        if (before := theirs.get(each.name)) is not None:
            ratio = each.median / before.median
            lines.append(f"| {each.name} | {before.median:,.4g} | {each.median:,.4g} {each.unit} | {ratio:.2f} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _measured_in(tree: Path, names: list[str], file: Path) -> list[Sample]:
    from benchmarks.figures import load

    here = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(str(each) for each in (tree / "src", tree / "tests", here))
    command = [sys.executable, "-m", "benchmarks", "--rounds", "1", "--only", ",".join(names), "--save", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": path})
    return [
        Sample(each.name, each.median, each.unit, each.floor, each.bar, of_floor=each.of_floor) for each in load(file)
    ]


if __name__ == "__main__":
    sys.exit(main())
