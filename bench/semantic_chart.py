"""The curve of hit rate against wrong hits, for docs/semantic-cache.md."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
"""Wrong hits as a share of hits, and hit rate."""

_LEFT, _TOP, _WIDTH, _HEIGHT = 70, 30, 560, 360
_LEAST_X, _LEAST_Y = 0.001, 0.01
"""Both axes are logarithmic and end at 1; what is less is drawn at the edge."""


def svg(
    thresholds: Sequence[float], plain: Sequence[Point], guarded: Sequence[Point], *, floor: float
) -> str:
    """Return the chart; `floor` is the share among pairs equal but for punctuation."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 30}"'
        f' height="{_TOP + _HEIGHT + 60}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for share in (0.001, 0.01, 0.1, 1):
        parts.append(_line(_x(share), _TOP, _x(share), _TOP + _HEIGHT, "#ddd"))
        parts.append(_text(_x(share), _TOP + _HEIGHT + 18, f"{share:.1%}", "middle"))
    for share in (0.01, 0.1, 1):
        parts.append(_line(_LEFT, _y(share), _LEFT + _WIDTH, _y(share), "#ddd"))
        parts.append(_text(_LEFT - 8, _y(share) + 4, f"{share:.0%}", "end"))
    for share, name in ((0.005, "goal: 0.5 %"), (floor, "equal but for punctuation")):
        dashes = ' stroke-dasharray="4 3"'
        parts.append(_line(_x(share), _TOP, _x(share), _TOP + _HEIGHT, "#444", dashes))
        parts.append(_text(_x(share) - 5, _TOP + 14, name, "end"))
    for points, name, colour in (
        (plain, "without the guard", "#c05621"),
        (guarded, "with the guard", "#2f855a"),
    ):
        path = " ".join(f"{_x(wrong):.1f},{_y(hit):.1f}" for wrong, hit in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        for threshold, (wrong, hit) in zip(thresholds, points, strict=True):
            parts.append(
                f'<circle cx="{_x(wrong):.1f}" cy="{_y(hit):.1f}" r="3.5" fill="{colour}">'
                f"<title>cosine ≥ {threshold}: {hit:.1%}, wrong {wrong:.1%}</title></circle>"
            )
        wrong, hit = points[0]
        parts.append(_text(_x(wrong) - 8, _y(hit) - 9, name, "end", colour))
    middle = _LEFT + _WIDTH / 2
    parts += [
        _text(middle, _TOP + _HEIGHT + 44, "wrong hits, of all hits, by the labels", "middle"),
        _text(_LEFT - 50, _TOP - 10, "hit rate: duplicates served, of all duplicates", "start"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _x(share: float) -> float:
    return _LEFT + _WIDTH * (1 - math.log(max(share, _LEAST_X)) / math.log(_LEAST_X))


def _y(share: float) -> float:
    return _TOP + _HEIGHT * math.log(max(share, _LEAST_Y)) / math.log(_LEAST_Y)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#444") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
