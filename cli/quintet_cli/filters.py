"""`--filter key=value` to the contract's filter."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from google.protobuf.struct_pb2 import Value

from quintet.retriever.v1.retriever_service_pb2 import Filter
from quintet_cli.errors import CliError


def parsed(conditions: Sequence[str]) -> Filter | None:
    """Return the filter that all `conditions` make, or None without any.

    A value that reads as a JSON number, true, false, null or a quoted string is
    that; any other is text. Values of one key are alternatives; different keys
    must all match. Raises `CliError` (usage) for a condition that is none.
    """
    values: dict[str, list[Value]] = {}
    for condition in conditions:
        key, equals, text = condition.partition("=")
        if not key or not equals:
            raise CliError(f"--filter {condition!r} is not of the form key=value", usage=True)
        values.setdefault(key, []).append(_value(text))
    parts = [_condition(key, alternatives) for key, alternatives in values.items()]
    if len(parts) < 2:
        return parts[0] if parts else None
    return Filter(all_of=Filter.AllOf(filters=parts))


def _condition(key: str, values: list[Value]) -> Filter:
    if len(values) == 1:
        return Filter(equals=Filter.Equals(key=key, value=values[0]))
    return Filter(one_of=Filter.OneOf(key=key, values=values))


def _value(text: str) -> Value:
    try:
        read = json.loads(text)
    except ValueError:
        return Value(string_value=text)
    match read:
        case bool():
            return Value(bool_value=read)
        case int() | float() if math.isfinite(read):
            return Value(number_value=read)
        case str():
            return Value(string_value=read)
        case None:
            return Value(null_value=0)  # type: ignore[arg-type]
    return Value(string_value=text)
