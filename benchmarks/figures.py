"""A figure: samples of several rounds, their median and spread, the floor that they are held against, and the bar."""

import json
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Figure", "Sample", "collect", "load", "number", "save", "table"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement in one round. *floor* names the sample that it is a multiple of; *bar* is what it must reach, and
    says of which: a multiple of the floor where there is one (`of_floor`), else a value in *unit*.
    """

    name: str
    value: float
    unit: str
    floor: str | None = None
    bar: float | None = None
    of_floor: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """The samples of one name. Rates (…/s) are better when higher, everything else when lower."""

    name: str
    unit: str
    median: float
    lowest: float
    highest: float
    rounds: int
    floor: str | None
    ratio: float | None
    bar: float | None
    of_floor: bool

    @property
    def reached(self) -> bool | None:
        """Whether the bar is reached; None where there is none."""
        value = self.ratio if self.of_floor else self.median
        if self.bar is None or value is None:
            return None
        return value >= self.bar if self.unit.endswith("/s") else value <= self.bar


def collect(samples: Iterable[Sample]) -> list[Figure]:
    """Return the figures of *samples*, in the order of their first appearance."""
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_name[sample.name].append(sample)
    medians = {name: statistics.median(each.value for each in found) for name, found in by_name.items()}
    figures = []
    for name, found in by_name.items():
        first, values = found[0], [each.value for each in found]
        floor = medians.get(first.floor) if first.floor else None
        figures.append(
            Figure(
                name,
                first.unit,
                medians[name],
                min(values),
                max(values),
                len(values),
                first.floor,
                medians[name] / floor if floor else None,
                first.bar,
                first.of_floor,
            )
        )
    return figures


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| figure | median | lowest to highest | of its floor | bar |", "|---|---|---|---|---|"]
    for each in figures:
        bar = "" if each.bar is None else f"{'×' if each.of_floor else ''}{each.bar:g} {_verdict(each.reached)}"
        ratio = f"{each.ratio:.2f} × {each.floor}" if each.ratio is not None else ""
        spread = f"{number(each.lowest)} to {number(each.highest)}" if each.rounds > 1 else ""
        lines.append(f"| {each.name} | {number(each.median)} {each.unit} | {spread} | {ratio} | {bar} |")
    return "\n".join(lines)


def _verdict(reached: bool | None) -> str:
    return {True: "reached", False: "**missed**", None: ""}[reached]


def number(value: float) -> str:
    """Return *value* as a reader likes it."""
    return f"{value:,.0f}".replace(",", " ") if value >= 1000 else f"{value:.3g}"


def save(path: Path, figures: Sequence[Figure]) -> None:
    """Write the figures and what they were measured on."""
    machine = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    shape = {"machine": machine, "figures": [asdict(each) for each in figures]}
    path.write_text(json.dumps(shape, indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> list[Figure]:
    """Return the figures that `save` wrote."""
    return [Figure(**each) for each in json.loads(path.read_text())["figures"]]
