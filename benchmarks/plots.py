"""Charts as SVG, by hand: a figure's median, its spread, and its bar; and how figures grow."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from benchmarks.figures import Figure, number

__all__ = ["plot", "plot_curves"]

_ROW, _LEFT, _WIDTH, _TOP = 34, 450, 420, 46


def plot(path: Path, title: str, figures: Sequence[Figure]) -> None:
    """Draw *figures*, which share a unit, one row each; the scale is logarithmic, as a floor is often a thousandth."""
    if not figures:
        return
    low = min(each.lowest for each in figures) / 2
    top = max(max(each.highest, _limit(each)) for each in figures)

    def along(value: float) -> float:
        return _WIDTH * math.log(value / low) / math.log(top / low)

    rows = [_row(at, each, along) for at, each in enumerate(figures)]
    height = _TOP + _ROW * len(figures) + 12
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 110}" height="{height}" '
        'font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="12" y="26" font-size="16">{escape(title)} ({escape(figures[0].unit)}, logarithmic)</text>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def plot_curves(path: Path, title: str, figures: Sequence[Figure]) -> None:
    """Draw each family of *figures*, those named `FAMILY at NUMBER …`, as a line: both scales are logarithmic."""
    families: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for each in figures:
        family, _, rest = each.name.partition(" at ")
        if rest and rest.split()[0].isdecimal():
            families[f"{family}, by {' '.join(rest.split()[1:])} ({each.unit})"].append(
                (int(rest.split()[0]), each.median)
            )
    lines = [_curve(at, name, points) for at, (name, points) in enumerate(families.items())]
    grid = [
        f'<line x1="50" x2="450" y1="{_height(level):.0f}" y2="{_height(level):.0f}" stroke="#d0d0d0"/>'
        f'<text x="44" y="{_height(level) + 4:.0f}" text-anchor="end">{level:g}</text>'
        for level in _LEVELS
    ]
    marks = [
        f'<text x="{_across(10**power):.0f}" y="396" text-anchor="middle">{10**power:,}</text>' for power in range(7)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="410" font-family="sans-serif" font-size="13">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="12" y="26" font-size="16">{escape(title)}</text>\n'
        + "\n".join([*grid, *marks, *lines])
        + "\n</svg>\n"
    )


_LEVELS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
_COLOURS = ("#4878a8", "#c03030", "#3a8a4a", "#b07020", "#7050a0", "#208a8a", "#a04080", "#606060", "#908020")


def _across(number: int) -> float:
    return 60 + 65 * math.log10(max(1, number))


def _height(ratio: float) -> float:
    return 290 - 40 * math.log2(ratio)


def _curve(at: int, name: str, points: Sequence[tuple[int, float]]) -> str:
    colour, first = _COLOURS[at % len(_COLOURS)], points[0][1]
    places = " ".join(f"{_across(number):.1f},{_height(value / first):.1f}" for number, value in points)
    y = 60 + 34 * at
    return (
        f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>'
        f'<line x1="490" x2="514" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="3"/>'
        f'<text x="522" y="{y}">{escape(name)}</text>'
    )


def _limit(figure: Figure) -> float:
    return figure.bar if figure.bar is not None and not figure.of_floor else 0.0


def _row(at: int, figure: Figure, along: Callable[[float], float]) -> str:
    y = _TOP + _ROW * at
    parts = [
        f'<text x="{_LEFT - 10}" y="{y + 17}" text-anchor="end">{escape(figure.name)}</text>',
        f'<rect x="{_LEFT}" y="{y + 4}" width="{along(figure.median):.1f}" height="18" fill="#4878a8"/>',
        f'<line x1="{_LEFT + along(figure.lowest):.1f}" x2="{_LEFT + along(figure.highest):.1f}" '
        f'y1="{y + 13}" y2="{y + 13}" stroke="black"/>',
        f'<text x="{_LEFT + along(figure.highest) + 8:.1f}" y="{y + 17}">{number(figure.median)}</text>',
    ]
    if limit := _limit(figure):
        x = f"{_LEFT + along(limit):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{y}" y2="{y + 26}" stroke="#c03030" stroke-width="2"/>')
    return "\n".join(parts)
