"""Bar charts as SVG, by hand: a figure's median, its spread, and its bar."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from benchmarks.figures import Figure

__all__ = ["plot"]

_ROW, _LEFT, _WIDTH, _TOP = 34, 330, 420, 46


def plot(path: Path, title: str, figures: Sequence[Figure]) -> None:
    """Draw *figures*, which share a unit, one row each."""
    if not figures:
        return
    top = max(max(each.highest, _limit(each)) for each in figures) * 1.08
    rows = [_row(at, each, _WIDTH / top) for at, each in enumerate(figures)]
    height = _TOP + _ROW * len(figures) + 12
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 110}" height="{height}" '
        'font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="12" y="26" font-size="16">{escape(title)} ({escape(figures[0].unit)})</text>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def _limit(figure: Figure) -> float:
    return figure.bar if figure.bar is not None and not figure.of_floor else 0.0


def _row(at: int, figure: Figure, scale: float) -> str:
    y = _TOP + _ROW * at
    parts = [
        f'<text x="{_LEFT - 10}" y="{y + 17}" text-anchor="end">{escape(figure.name)}</text>',
        f'<rect x="{_LEFT}" y="{y + 4}" width="{figure.median * scale:.1f}" height="18" fill="#4878a8"/>',
        f'<line x1="{_LEFT + figure.lowest * scale:.1f}" x2="{_LEFT + figure.highest * scale:.1f}" '
        f'y1="{y + 13}" y2="{y + 13}" stroke="black"/>',
        f'<text x="{_LEFT + figure.highest * scale + 8:.1f}" y="{y + 17}">{figure.median:,.3g}</text>',
    ]
    if limit := _limit(figure):
        x = f"{_LEFT + limit * scale:.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{y}" y2="{y + 26}" stroke="#c03030" stroke-width="2"/>')
    return "\n".join(parts)
