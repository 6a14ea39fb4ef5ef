"""Turns the contract's Filter into a tree of conditions, or says what is wrong with it.

Every fault is INVALID_FILTER; its metadata's `path` leads to the fault within the
filter, for instance "all_of.filters[1].range.gte".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from google.protobuf import struct_pb2

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_retriever import filters
from quintet_retriever.filters import Bound, Condition, Path, Scalar
from quintet_servicekit.errors import Reason, ServiceError, Violation

MAX_DEPTH = 8
MAX_CONDITIONS = 100
MAX_KEY_CHARS = 200
MAX_VALUES = 1_000
MAX_VALUE_CHARS = 10_000
"""Longest string in a filter, in characters; as long as a question."""


def parse_filter(message: pb.Filter) -> Condition:
    """Return the condition that the message stands for.

    Raises `ServiceError` INVALID_FILTER.
    """
    return _Parser().condition(message, "", depth=1)


class _Parser:
    def __init__(self) -> None:
        self._count = 0

    def condition(self, message: pb.Filter, path: str, *, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise _invalid(path, f"nests more than {MAX_DEPTH} levels deep")
        self._count += 1
        if self._count > MAX_CONDITIONS:
            raise _invalid(path, f"has more than {MAX_CONDITIONS} conditions")
        kind = message.WhichOneof("condition")
        here = f"{path}.{kind}".lstrip(".")
        match kind:
            case "equals":
                key = _key(message.equals.key, here)
                return filters.Equals(key, _scalar(message.equals.value, f"{here}.value"))
            case "one_of":
                return filters.OneOf(_key(message.one_of.key, here), _values(message.one_of, here))
            case "range":
                return _range(message.range, here)
            case "exists":
                return filters.Exists(_key(message.exists.key, here))
            case "all_of":
                return filters.AllOf(self._several(message.all_of.filters, here, depth))
            case "any_of":
                return filters.AnyOf(self._several(message.any_of.filters, here, depth))
            case "negated":
                return filters.Negated(self.condition(message.negated, here, depth=depth + 1))
        raise _invalid(path, "sets no condition")

    def _several(
        self, messages: Sequence[pb.Filter], path: str, depth: int
    ) -> tuple[Condition, ...]:
        if not messages:
            raise _invalid(f"{path}.filters", "must hold at least one condition")
        return tuple(
            self.condition(message, f"{path}.filters[{i}]", depth=depth + 1)
            for i, message in enumerate(messages)
        )


def _key(key: str, path: str) -> Path:
    names = tuple(key.split("."))
    if len(key) > MAX_KEY_CHARS or "\0" in key or not all(names):
        raise _invalid(
            f"{path}.key",
            f"must be names joined by dots, at most {MAX_KEY_CHARS} characters, without NUL",
        )
    return names


def _values(message: pb.Filter.OneOf, path: str) -> tuple[Scalar, ...]:
    if not 1 <= len(message.values) <= MAX_VALUES:
        raise _invalid(f"{path}.values", f"must hold 1 to {MAX_VALUES} values")
    return tuple(_scalar(value, f"{path}.values[{i}]") for i, value in enumerate(message.values))


def _range(message: pb.Filter.Range, path: str) -> filters.Range:
    bounds: dict[str, Bound] = {}
    for name in ("gte", "gt", "lte", "lt"):
        if message.HasField(name):
            value = _scalar(getattr(message, name), f"{path}.{name}")
            if value is None or isinstance(value, bool):
                raise _invalid(f"{path}.{name}", "must be a number or a string")
            bounds[name] = Bound(value, inclusive=name.endswith("e"))
    if not bounds:
        raise _invalid(path, "sets no bound")
    for one, other in (("gte", "gt"), ("lte", "lt")):
        if one in bounds and other in bounds:
            raise _invalid(path, f"sets both {one} and {other}")
    if len({type(bound.value) for bound in bounds.values()}) > 1:
        raise _invalid(path, "has bounds of two types")
    return filters.Range(
        _key(message.key, path),
        lower=bounds.get("gte") or bounds.get("gt"),
        upper=bounds.get("lte") or bounds.get("lt"),
    )


def _scalar(value: struct_pb2.Value, path: str) -> Scalar:
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "bool_value":
            return value.bool_value
        case "number_value" if math.isfinite(value.number_value):
            return value.number_value
        case "string_value" if (
            len(value.string_value) <= MAX_VALUE_CHARS and "\0" not in value.string_value
        ):
            return value.string_value
    raise _invalid(
        path,
        f"must be a string of at most {MAX_VALUE_CHARS} characters without NUL,"
        " a finite number, a bool or null",
    )


def _invalid(path: str, description: str) -> ServiceError:
    field = f"filter.{path}" if path else "filter"
    return ServiceError(
        Reason.INVALID_FILTER,
        f"{field} {description}",
        metadata={"path": path},
        violations=[Violation(field, description)],
    )
