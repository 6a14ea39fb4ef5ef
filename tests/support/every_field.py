"""Every field of a contract, one after the other: so that a new one cannot be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb

OTHER = "A Violin"
"""What stands in a field of text: it names something."""

M = TypeVar("M", bound=Message)
Change = Callable[[Any], None]

_FILTER = retriever_pb.Filter(
    equals=retriever_pb.Filter.Equals(key="k", value=Value(string_value="v"))
)
_WHOLE: Mapping[str, Message] = {
    it.DESCRIPTOR.full_name: it
    for it in (_FILTER, Duration(seconds=3), retriever_pb.Consistency(fully_consistent=True))
}
"""Messages that are one value."""
_NUMBERS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)


def with_each_field(base: M) -> Iterator[tuple[str, M]]:
    """Yield the path of each field, those within other messages too, with a copy of `base`
    that has another value there."""
    for field in base.DESCRIPTOR.fields:
        for path, change in _changes(field):
            other = type(base)()
            other.CopyFrom(base)
            change(other)
            yield path, other


def indifferent(base: M, decided: Callable[[M], object]) -> set[str]:
    """Return the paths of the fields that make no difference to what `decided` returns."""
    standing = decided(base)
    return {path for path, other in with_each_field(base) if decided(other) == standing}


def _changes(field: Any) -> Iterator[tuple[str, Change]]:
    if field.message_type is None:
        yield field.name, partial(_set, field=field, value=_other(field))
        return
    whole = _WHOLE.get(field.message_type.full_name)
    if whole is not None:
        yield field.name, lambda message: _inner(message, field).CopyFrom(whole)
        return
    for inner in field.message_type.fields:
        for path, change in _changes(inner):
            yield f"{field.name}.{path}", partial(_within, field=field, change=change)


def _within(message: Any, *, field: FieldDescriptor, change: Change) -> None:
    change(_inner(message, field))


def _inner(message: Any, field: FieldDescriptor) -> Any:
    held = getattr(message, field.name)
    if not field.is_repeated:
        return held
    return held[0] if held else held.add()


def _set(message: Any, *, field: FieldDescriptor, value: object) -> None:
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _other(field: FieldDescriptor) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[1].number
    if field.type in _NUMBERS:
        return 0.5
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    if field.type == FieldDescriptor.TYPE_STRING:
        return OTHER
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"otherother12"
    return 7
