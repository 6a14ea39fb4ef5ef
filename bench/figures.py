"""What a bench tells: figures, each with what it was compared with and what was wanted."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Samples = Sequence[float]
"""One measurement a round. Those of two contenders belong together round by round."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    `value` and `spread` (first and third quartile of the rounds) are in `unit`.
    `ratio` is the median over the rounds of ours by theirs; None without another.
    `met` is None where there is no goal, or where the other could not be measured.
    """

    name: str
    value: float
    unit: str
    compared_with: str
    ratio: float | None
    goal: str
    met: bool | None
    spread: tuple[float, float]


def alone(
    name: str,
    unit: str,
    ours: Samples,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Return a figure that is compared with nothing but its goal."""
    value = statistics.median(ours)
    goal = _goal(at_most, at_least, unit)
    return Figure(
        name, value, unit, "", None, goal, _met(value, at_most, at_least), quartiles(ours)
    )


def compared(
    name: str,
    unit: str,
    ours: Samples,
    other: str,
    theirs: Samples | None,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Return a figure whose goal is a ratio of ours to theirs. `theirs` None: the other
    could not be run, and `other` says why."""
    goal = _goal(at_most, at_least, "×")
    if theirs is None:
        return Figure(name, statistics.median(ours), unit, other, None, goal, None, quartiles(ours))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return Figure(
        name,
        statistics.median(ours),
        unit,
        f"{other}: {shown(statistics.median(theirs))} {unit}",
        ratio,
        goal,
        _met(ratio, at_most, at_least),
        quartiles(ours),
    )


def exceeding(
    name: str, unit: str, ours: Samples, other: str, theirs: Samples, *, at_most: float
) -> Figure:
    """Return a figure whose goal is a difference: at most theirs and `at_most` more."""
    excess = statistics.median(a - b for a, b in zip(ours, theirs, strict=True))
    figure = compared(name, unit, ours, other, theirs)
    return Figure(
        name,
        figure.value,
        unit,
        figure.compared_with,
        figure.ratio,
        f"≤ theirs + {shown(at_most)} {unit}",
        excess <= at_most,
        figure.spread,
    )


def quartiles(samples: Samples) -> tuple[float, float]:
    """Return the first and the third quartile."""
    if len(samples) < 2:
        return samples[0], samples[0]
    first, _, third = statistics.quantiles(samples, n=4, method="inclusive")
    return first, third


def shown(value: float) -> str:
    """Return a number with three significant digits, for people."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def _goal(at_most: float | None, at_least: float | None, unit: str) -> str:
    if at_most is not None:
        return f"≤ {shown(at_most)} {unit}"
    return "" if at_least is None else f"≥ {shown(at_least)} {unit}"


def _met(value: float, at_most: float | None, at_least: float | None) -> bool | None:
    if at_most is not None:
        return value <= at_most
    return None if at_least is None else value >= at_least
