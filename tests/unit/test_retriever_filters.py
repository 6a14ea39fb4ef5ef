"""The retriever's filters: from the contract's message to a tree, and from that to SQL."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from google.protobuf import struct_pb2
from psycopg import sql

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet_retriever import filters
from quintet_retriever.filter_parsing import parse_filter
from quintet_retriever.filter_sql import FilterSql
from quintet_retriever.filters import Bound, Condition
from quintet_servicekit.errors import Reason, ServiceError


def equals(key: str, value: str | float | bool | None) -> pb.Filter:
    message = pb.Filter()
    message.equals.key = key
    match value:
        case None:
            message.equals.value.null_value = struct_pb2.NULL_VALUE
        case bool():
            message.equals.value.bool_value = value
        case str():
            message.equals.value.string_value = value
        case _:
            message.equals.value.number_value = value
    return message


def rendered(condition: Condition) -> FilterSql:
    return FilterSql(condition, sql.Identifier("metadata"))


def text_of(condition: Condition) -> str:
    return rendered(condition).sql.as_string(None)


@pytest.mark.parametrize("value", ["x", 1.5, True, False, None])
def test_a_scalar_of_each_kind_keeps_its_type(value: str | float | bool | None) -> None:
    parsed = parse_filter(equals("a.b", value))
    assert isinstance(parsed, filters.Equals)
    assert (parsed.path, parsed.value) == (("a", "b"), value)
    assert type(parsed.value) is type(value)


def test_every_kind_of_condition_becomes_its_node() -> None:
    message = pb.Filter()
    one = message.all_of.filters.add()
    one.one_of.key = "a"
    one.one_of.values.add(string_value="x")
    one.one_of.values.add(number_value=2)
    two = message.all_of.filters.add().any_of
    two.filters.add().exists.key = "b"
    ranged = two.filters.add().negated.range
    ranged.key = "c"
    ranged.gte.number_value = 1
    ranged.lt.number_value = 2
    assert parse_filter(message) == filters.AllOf(
        (
            filters.OneOf(("a",), ("x", 2.0)),
            filters.AnyOf(
                (
                    filters.Exists(("b",)),
                    filters.Negated(
                        filters.Range(("c",), Bound(1.0, inclusive=True), Bound(2.0, False))
                    ),
                )
            ),
        )
    )


def nested(depth: int) -> pb.Filter:
    message = equals("a", 1)
    for _ in range(depth - 1):
        message = pb.Filter(negated=message)
    return message


def wide(conditions: int) -> pb.Filter:
    return pb.Filter(all_of=pb.Filter.AllOf(filters=[equals("a", 1)] * (conditions - 1)))


def with_range(change: Callable[[pb.Filter.Range], object]) -> pb.Filter:
    message = pb.Filter()
    message.range.key = "a"
    change(message.range)
    return message


def struct_value() -> pb.Filter:
    message = pb.Filter()
    message.equals.key = "a"
    message.equals.value.struct_value.update({"b": 1})
    return message


def one_of(values: int) -> pb.Filter:
    message = pb.Filter()
    message.one_of.key = "a"
    for _ in range(values):
        message.one_of.values.add(number_value=1)
    return message


def mixed_range(message: pb.Filter.Range) -> None:
    message.gte.number_value = 1
    message.lt.string_value = "2"


def double_range(message: pb.Filter.Range) -> None:
    message.gte.number_value = 1
    message.gt.number_value = 2


def bool_range(message: pb.Filter.Range) -> None:
    message.gte.bool_value = True


def nan_range(message: pb.Filter.Range) -> None:
    message.lte.number_value = math.nan


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (pb.Filter(), ""),
        (pb.Filter(negated=pb.Filter()), "negated"),
        (pb.Filter(all_of=pb.Filter.AllOf()), "all_of.filters"),
        (pb.Filter(any_of=pb.Filter.AnyOf(filters=[pb.Filter()])), "any_of.filters[0]"),
        (nested(9), ".".join(["negated"] * 8)),
        (wide(101), "all_of.filters[99]"),
        (equals("", 1), "equals.key"),
        (equals("a..b", 1), "equals.key"),
        (equals(".a", 1), "equals.key"),
        (equals("a" * 201, 1), "equals.key"),
        (equals("a\0", 1), "equals.key"),
        (equals("a", "\0"), "equals.value"),
        (equals("a", "x" * 10_001), "equals.value"),
        (equals("a", math.inf), "equals.value"),
        (struct_value(), "equals.value"),
        (pb.Filter(equals=pb.Filter.Equals(key="a")), "equals.value"),
        (pb.Filter(exists=pb.Filter.Exists()), "exists.key"),
        (one_of(0), "one_of.values"),
        (one_of(1_001), "one_of.values"),
        (with_range(lambda message: None), "range"),
        (with_range(mixed_range), "range"),
        (with_range(double_range), "range"),
        (with_range(bool_range), "range.gte"),
        (with_range(nan_range), "range.lte"),
    ],
)
def test_a_malformed_filter_is_refused_with_the_path_to_its_fault(
    message: pb.Filter, path: str
) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_filter(message)
    assert caught.value.reason is Reason.INVALID_FILTER
    assert caught.value.metadata == {"path": path}


def test_the_largest_filters_are_accepted() -> None:
    for message in (nested(8), wide(100), one_of(1_000), equals("a" * 200, "x" * 10_000)):
        parse_filter(message)


HOSTILE = ["'; DROP TABLE x; --", '"', "%s", "%(a)s", "{}", "{0}", "$1", "\\", "' OR TRUE --"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_key_and_no_value_is_ever_part_of_the_sql(text: str) -> None:
    harmless, hostile = (
        filters.AllOf(
            (
                filters.Equals((word, word), word),
                filters.OneOf((word,), (word, 1.0, None)),
                filters.Range((word,), Bound(word, inclusive=True), None),
                filters.Negated(filters.Exists((word,))),
            )
        )
        for word in ("word", text)
    )
    assert text_of(hostile) == text_of(harmless)
    assert text in rendered(hostile).parameters.values()


def test_equality_is_containment_which_the_index_serves() -> None:
    condition = rendered(filters.Equals(("a", "b"), "x"))
    assert condition.sql.as_string(None) == '("metadata" @> %(filter_0)s::jsonb)'
    assert condition.parameters["filter_0"].obj == {"a": {"b": "x"}}


def test_each_placeholder_has_its_parameter() -> None:
    ranged = filters.Range(("a", "b"), Bound(1.0, inclusive=False), Bound(2.0, inclusive=True))
    condition = rendered(filters.AnyOf((ranged, filters.Exists(("c",)))))
    text = condition.sql.as_string(None)
    assert condition.parameters
    for name in condition.parameters:
        assert text.count(f"%({name})s") == 1
    assert " OR " in text and "> %(" in text and "<= %(" in text
