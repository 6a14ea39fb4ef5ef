"""Turns a tree of conditions into SQL on a jsonb object column.

Every key and value becomes a parameter; only the operators are written out. No
piece is ever NULL, so that a negation means what it says.
"""

from __future__ import annotations

import json
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from quintet_retriever.filters import (
    AllOf,
    AnyOf,
    Bound,
    Condition,
    Equals,
    Exists,
    Negated,
    OneOf,
    Path,
    Range,
)


class FilterSql:
    """`sql` is a boolean expression; `parameters` are the values of its placeholders,
    which are named filter_0, filter_1 and so on."""

    def __init__(self, condition: Condition, column: sql.Composable) -> None:
        self._column = column
        self.parameters: dict[str, Any] = {}
        self.sql = self._render(condition)

    def _render(self, condition: Condition) -> sql.Composed:
        match condition:
            case Equals(path, value):
                # Containment, because the GIN index serves it. Of a scalar at the
                # end of nested objects it is equality.
                nested: Any = value
                for name in reversed(path):
                    nested = {name: nested}
                return sql.SQL("({} @> {})").format(self._column, self._json(nested))
            case OneOf(path, values):
                # One parameter for all, since a statement may have 65,535; as texts,
                # whose list is quick to build.
                choices = self._parameter([_dumps(value) for value in values], "text[]::jsonb[]")
                return sql.SQL("(({} = ANY ({})) IS TRUE)").format(self._at(path), choices)
            case Range(path, lower, upper):
                return self._range(path, lower, upper)
            case Exists(path):
                return sql.SQL("({} IS NOT NULL)").format(self._at(path))
            case AllOf(conditions):
                return self._joined(" AND ", conditions)
            case AnyOf(conditions):
                return self._joined(" OR ", conditions)
            case Negated(inner):
                return sql.SQL("(NOT {})").format(self._render(inner))

    def _joined(self, connective: str, conditions: tuple[Condition, ...]) -> sql.Composed:
        pieces = [self._render(condition) for condition in conditions]
        return sql.SQL("({})").format(sql.SQL(connective).join(pieces))

    def _range(self, path: Path, lower: Bound | None, upper: Bound | None) -> sql.Composed:
        comparisons = []
        kind = ""
        for bound, sign in ((lower, ">"), (upper, "<")):
            if bound is None:
                continue
            comparator = sql.SQL(sign + "=" if bound.inclusive else sign)
            if isinstance(bound.value, str):
                kind = "string"
                # The empty path gives the string itself, without its JSON quotes.
                template = "(({} #>> '{{}}') COLLATE \"C\" {} {})"
                value = self._parameter(bound.value, "text")
            else:
                kind = "number"
                template = "({} {} {})"
                value = self._json(bound.value)
            comparisons.append(sql.SQL(template).format(self._at(path), comparator, value))
        return sql.SQL("((jsonb_typeof({}) = {} AND {}) IS TRUE)").format(
            self._at(path), sql.Literal(kind), sql.SQL(" AND ").join(comparisons)
        )

    def _at(self, path: Path) -> sql.Composed:
        """The value at a path: `->` with a text never reaches into a list."""
        steps = [self._parameter(name, "text") for name in path]
        return sql.SQL("({})").format(sql.SQL(" -> ").join([self._column, *steps]))

    def _json(self, value: Any) -> sql.Composed:
        return self._parameter(Jsonb(value, dumps=_dumps), "jsonb")

    def _parameter(self, value: object, kind: str) -> sql.Composed:
        name = f"filter_{len(self.parameters)}"
        self.parameters[name] = value
        return sql.SQL("{}::{}").format(sql.Placeholder(name), sql.SQL(kind))


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
