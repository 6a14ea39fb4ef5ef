"""Bars of how far each figure is from its goal, for a terminal and for the docs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

from bench.figures import Figure

_MOST = 1.5
"""Times the goal at which a bar ends: beyond it nobody needs to tell them apart."""


def score(figure: Figure) -> float | None:
    """Return how well a goal is met: 1 is exactly, above 1 better; None without."""
    found = re.fullmatch(r"([≤≥]) (theirs \+ )?([\d.,]+) (.*)", figure.goal)
    if found is None or figure.met is None:
        return None
    sign, excess, number, unit = found.groups()
    measured = figure.ratio if unit == "×" else figure.value
    goal = float(number.replace(",", ""))
    if excess and figure.ratio:
        goal += figure.value / figure.ratio
    if measured is None or not measured or not goal:
        return None
    return measured / goal if sign == "≥" else goal / measured


def bar(figure: Figure, width: int = 12) -> str:
    """Return a bar of text; a mark shows where the goal is."""
    value = score(figure)
    if value is None:
        return ""
    filled = round(min(value, _MOST) / _MOST * width)
    goal = round(width / _MOST)
    cells = ["█" if cell < filled else " " for cell in range(width)]
    cells.insert(goal, "|")
    return "".join(cells)


def svg(figures: Sequence[Figure]) -> str:
    """Return a chart of every figure that has a goal."""
    rows = [(figure, value) for figure in figures if (value := score(figure)) is not None]
    row_height, left, width = 22, 470, 330
    height = row_height * len(rows) + 34
    goal_at = left + width / _MOST
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{height}"'
        f' viewBox="0 0 {left + width + 60} {height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{goal_at}" y="14" text-anchor="middle" fill="#444">goal</text>',
    ]
    for number, (figure, value) in enumerate(rows):
        top = 22 + number * row_height
        length = min(value, _MOST) / _MOST * width
        colour = "#2f855a" if figure.met else "#c05621"
        parts += [
            f'<text x="{left - 8}" y="{top + 14}" text-anchor="end">{escape(figure.name)}</text>',
            f'<rect x="{left}" y="{top + 3}" width="{length:.1f}" height="14" fill="{colour}"/>',
            f'<text x="{left + length + 5:.1f}" y="{top + 14}" fill="#444">{value:.2f}</text>',
        ]
    parts += [
        f'<line x1="{goal_at}" x2="{goal_at}" y1="18" y2="{height - 8}" stroke="#444"'
        ' stroke-dasharray="4 3"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
