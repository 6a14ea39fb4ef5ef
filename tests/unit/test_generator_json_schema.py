"""Which JSON Schemas the constrained decoder is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quintet_generator.json_schema import MAX_DEPTH, MAX_REPEATS, check_supported
from quintet_servicekit.errors import Reason, ServiceError

LINK: dict[str, Any] = {"$ref": "#/$defs/x"}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth - 1):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string", "minLength": 0, "maxLength": MAX_REPEATS},
        {"type": ["string", "null"], "description": "either"},
        {"enum": [1, "two", None]},
        {"const": {"a": 1}},
        {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"properties": {"pattern": {"type": "string"}}},
        {"$defs": {"x": {"type": "array", "items": LINK}}, "properties": {"a": LINK}},
        nested(MAX_DEPTH),
    ],
)
def test_what_is_known_to_work_passes(schema: Any) -> None:
    check_supported(json.dumps(schema), "m")


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "nonsense"}, "a type"),
        ({"type": []}, "a type"),
        ({"type": 7}, "a type"),
        ({"type": [{}]}, "a type"),
        ({"type": "string", "pattern": "(("}, "'pattern'"),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "'maximum'"),
        ({"type": "string", "maxLength": MAX_REPEATS + 1}, "maxLength"),
        ({"type": "string", "maxLength": "9"}, "maxLength"),
        ({"type": "string", "minLength": True}, "minLength"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems above"),
        ({"enum": []}, "enum"),
        ({"enum": 3}, "enum"),
        ({"anyOf": {"type": "null"}}, "anyOf"),
        ({"anyOf": [False]}, "neither an object"),
        ({"properties": {"a": False}}, "neither an object"),
        ({"properties": []}, "properties"),
        ({"required": "a"}, "required"),
        ({"required": [1]}, "required"),
        ({"items": []}, "neither an object"),
        ({"additionalProperties": "no"}, "neither an object"),
        (LINK, "reference"),
        ({"$ref": 3}, "reference"),
        ({"$ref": "https://example.org/schema"}, "reference"),
        ({"$defs": [], **LINK}, "$defs"),
        ({"$defs": {"x": LINK}, **LINK}, "only a reference"),
        ({"$defs": {"x": {"$ref": "#/$defs/y"}, "y": LINK}, **LINK}, "only a reference"),
        ({"$defs": {"unused": {"type": "odd"}}}, "a type"),
        (nested(MAX_DEPTH + 2), "levels"),
        (nested(900), "levels"),
    ],
)
def test_what_is_not_is_named(schema: Any, fault: str) -> None:
    with pytest.raises(ServiceError) as caught:
        check_supported(json.dumps(schema), "m")
    assert caught.value.reason is Reason.UNSUPPORTED_BY_MODEL
    assert fault in caught.value.metadata["feature"]
    assert caught.value.metadata["model"] == "m"
