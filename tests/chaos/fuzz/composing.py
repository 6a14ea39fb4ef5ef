"""Makes messages of any type from its descriptor, as valid or as hostile as one likes."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from chaos.fuzz import hostile
from chaos.fuzz.lexicon import Lexicon

_DEPTH = 5
_DEEPEST = 60
"""Levels of a message that is deep on purpose; protobuf reads up to 100."""
_MESSAGE = FieldDescriptor.CPPTYPE_MESSAGE
_MANY = (0, 17, 101, 257, 1_001)
_MAX_MESSAGES = 300
_MAX_CHARS = 200_000
_MAX_BYTES = 1_000_000
"""Bounds of one message: a tree of messages grows beyond all memory."""


def composed(kind: Descriptor, words: Lexicon, rng: random.Random, hostility: float) -> Message:
    """Return a message of a type; of its values so large a part is hostile."""
    deep = rng.random() < hostility / 10
    return _Composer(words, rng, hostility, _DEEPEST if deep else _DEPTH).message(kind, 0)


class _Composer:
    def __init__(self, words: Lexicon, rng: random.Random, hostility: float, depth: int) -> None:
        self._words = words
        self._rng = rng
        self._hostility = hostility
        self._depth = depth
        self._messages = _MAX_MESSAGES
        self._chars = _MAX_CHARS

    def message(self, kind: Descriptor | None, level: int) -> Message:
        assert kind is not None
        template = self._words.templates.get(kind.full_name)
        if template and not self._is_hostile():
            return template(self._rng)
        made: Message = message_factory.GetMessageClass(kind)()
        self._messages -= 1
        for field in self._chosen(kind, level):
            if field.is_repeated:
                self._fill(made, field, level)
            elif field.cpp_type == _MESSAGE:
                inner = self.message(field.message_type, level + 1)
                getattr(made, field.name).CopyFrom(inner)
            else:
                setattr(made, field.name, self._scalar(field))
        return made

    def _chosen(self, kind: Descriptor, level: int) -> list[FieldDescriptor]:
        """Return the fields that are set: of a oneof one at most."""
        rng = self._rng
        chosen = [rng.choice(oneof.fields) for oneof in kind.oneofs if rng.random() < 0.85]
        for field in kind.fields:
            often = 0.75 if self._hostility > 0.2 else self._words.often(field.name)
            if field.containing_oneof is None and rng.random() < often:
                chosen.append(field)
        if level >= self._depth or self._messages < 0:
            return [field for field in chosen if field.cpp_type != _MESSAGE]
        if self._depth == _DEEPEST:
            # One branch only, else it grows as a tree does.
            inner = [field for field in kind.fields if field.cpp_type == _MESSAGE]
            return [rng.choice(inner)] if inner and level else chosen
        return chosen

    def _fill(self, made: Message, field: FieldDescriptor, level: int) -> None:
        count = self._rng.randint(1, 3)
        if self._is_hostile() and self._depth != _DEEPEST:
            count = self._rng.choice(_MANY)
        target: Any = getattr(made, field.name)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
            for _ in range(count if level < 2 else 1):
                if value.cpp_type == _MESSAGE:
                    inner = self.message(value.message_type, level + 1)
                    target[self._scalar(key)].CopyFrom(inner)
                else:
                    target[self._scalar(key)] = self._scalar(value)
        elif entry is not None:
            # One is made, and the others are like it: a thousand would take seconds.
            one = self.message(entry, level + 1)
            most = _MAX_BYTES // max(1, one.ByteSize())
            target.extend([one] * min(count, max(1, most)) if level < 2 else [one])
        else:
            target.extend(self._scalar(field) for _ in range(count))

    def _scalar(self, field: FieldDescriptor) -> Any:
        value = self._any_scalar(field)
        if isinstance(value, str | bytes):
            self._chars -= len(value)
            return value if self._chars > 0 else value[:4]
        return value

    def _any_scalar(self, field: FieldDescriptor) -> Any:
        if not self._is_hostile():
            value = self._words.value(field, self._rng)
            if value is not None:
                return value
            if field.enum_type is not None:
                return self._rng.choice(field.enum_type.values).number
            if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
                return self._rng.random() < 0.3
            if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
                return self._rng.randint(0, 3)
            return b"" if field.type == FieldDescriptor.TYPE_BYTES else "word"
        return hostile.value(field, self._rng)

    def _is_hostile(self) -> bool:
        return self._rng.random() < self._hostility
