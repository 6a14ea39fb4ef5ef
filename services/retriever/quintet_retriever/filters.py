"""Conditions on documents' metadata, as a tree that knows neither wire nor SQL.

A `path` is the names that lead into nested objects, outermost first; it never
leads into lists. Comparing a value of another type, or one that is not there,
is false.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Scalar: TypeAlias = str | float | bool | None
Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Equals:
    """The value at `path` equals `value`, in type too."""

    path: Path
    value: Scalar


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value at `path` equals one of `values`."""

    path: Path
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range; strings are ordered by code point."""

    value: str | float
    inclusive: bool


@dataclass(frozen=True, slots=True)
class Range:
    """The value at `path` lies within the bounds, which are of one type; at least
    one is there."""

    path: Path
    lower: Bound | None
    upper: Bound | None


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value at `path`; null counts as one."""

    path: Path


@dataclass(frozen=True, slots=True)
class AllOf:
    """All conditions hold; there is at least one."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one condition holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Negated:
    """The condition does not hold."""

    condition: Condition


Condition: TypeAlias = "Equals | OneOf | Range | Exists | AllOf | AnyOf | Negated"
