"""Checks that the constrained decoder can hold to a JSON Schema, before it tries.

The decoder fails for all of its requests at once when it meets a schema that it
cannot compile, and spends seconds on long repetitions, so only what is known to work
passes: types, objects, arrays, enums, alternatives and references to definitions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from quintet_servicekit.errors import Reason, ServiceError

MAX_REPEATS = 128
"""Longest string or array whose length a schema may set: the decoder takes a second
for a string of at most 100 characters, and half a minute for one of 4,000."""

MAX_DEPTH = 32

_TYPES = frozenset("null boolean integer number string array object".split())
_ANNOTATIONS = frozenset("title description default examples $schema $id $comment".split())
_LENGTHS = (("minLength", "maxLength"), ("minItems", "maxItems"))
_KNOWN = _ANNOTATIONS.union(
    *_LENGTHS,
    "type properties required additionalProperties items enum const anyOf $ref $defs".split(),
)


def check_supported(schema: str, model: str) -> None:
    """Raise `ServiceError` UNSUPPORTED_BY_MODEL, naming what the model cannot hold to.

    `schema` is a JSON object as text.
    """
    root = json.loads(schema)
    fault = next(_faults(root, root, MAX_DEPTH), None)
    if fault is not None:
        raise ServiceError(
            Reason.UNSUPPORTED_BY_MODEL,
            f"the model {model} cannot hold to this schema: {fault}",
            metadata={"model": model, "feature": f"json_schema: {fault}"},
        )


def _faults(schema: Any, root: Any, depth: int) -> Iterator[str]:
    if schema is True:
        return
    if not isinstance(schema, dict):
        yield "a schema that is neither an object nor true"
        return
    if depth == 0:
        yield f"more than {MAX_DEPTH} levels"
        return
    for keyword in sorted(schema.keys() - _KNOWN):
        yield f"the keyword {keyword[:40]!r}"
    yield from _type_faults(schema)
    yield from _length_faults(schema)
    yield from _reference_faults(schema, root)
    for name in ("properties", "$defs"):
        members = schema.get(name, {})
        if not isinstance(members, dict):
            yield f"{name} that is no object"
            return
        for member in members.values():
            yield from _faults(member, root, depth - 1)
    if schema.get("additionalProperties", False) is not False:
        yield from _faults(schema["additionalProperties"], root, depth - 1)
    if "items" in schema:
        yield from _faults(schema["items"], root, depth - 1)
    yield from _list_faults(schema)
    alternatives = schema.get("anyOf", [])
    for alternative in alternatives if isinstance(alternatives, list) else []:
        yield from _faults(alternative, root, depth - 1)


def _list_faults(schema: dict[str, Any]) -> Iterator[str]:
    for name in ("enum", "anyOf"):
        if name in schema and not (isinstance(schema[name], list) and schema[name]):
            yield f"{name} that is no list, or empty"
    required = schema.get("required", [])
    if not (isinstance(required, list) and all(isinstance(it, str) for it in required)):
        yield "required that is no list of names"


def _type_faults(schema: dict[str, Any]) -> Iterator[str]:
    kind = schema.get("type", "object")
    kinds = kind if isinstance(kind, list) else [kind]
    if not kinds or not all(isinstance(it, str) and it in _TYPES for it in kinds):
        yield "a type that JSON does not have"


def _length_faults(schema: dict[str, Any]) -> Iterator[str]:
    for names in _LENGTHS:
        least, most = (schema.get(name) for name in names)
        for name, value in zip(names, (least, most), strict=True):
            if value is not None and not (type(value) is int and 0 <= value <= MAX_REPEATS):
                yield f"{name} beyond {MAX_REPEATS}"
                return
        if least is not None and most is not None and least > most:
            yield f"{names[0]} above {names[1]}"


def _reference_faults(schema: dict[str, Any], root: Any) -> Iterator[str]:
    reference = schema.get("$ref")
    if reference is None:
        return
    definitions = root.get("$defs")
    definitions = definitions if isinstance(definitions, dict) else {}
    name = reference.removeprefix("#/$defs/") if isinstance(reference, str) else ""
    if f"#/$defs/{name}" != reference or name not in definitions or "/" in name or "~" in name:
        yield "a reference to something other than its own $defs"
    elif _leads_to_itself(name, definitions):
        yield "a definition that is only a reference to itself"


def _leads_to_itself(name: str, definitions: dict[str, Any]) -> bool:
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        target = definitions.get(name)
        following = target.get("$ref") if isinstance(target, dict) else None
        if not isinstance(following, str):
            return False
        name = following.removeprefix("#/$defs/")
    return True
