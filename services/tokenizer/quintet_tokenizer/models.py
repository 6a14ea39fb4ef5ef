"""What passes between the layers of the tokenizer service."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quintet_servicekit.cache.use import CacheUse

IntArray = npt.NDArray[np.int64]


class Span(NamedTuple):
    """A half-open range of code points of a text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one text; `offsets` is absent unless asked for."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]] | None


class Side(enum.Enum):
    """The end of a text that truncation cuts off."""

    END = "end"
    START = "start"


@dataclass(frozen=True, slots=True)
class Truncated:
    """The piece of a text that is left, its tokens, and the whole text's."""

    span: Span
    tokens: int
    original_tokens: int


class Heading(NamedTuple):
    """A heading of a text: its lines, its level from 1 to 6, and its text."""

    span: Span
    level: int
    title: str


class Chunk(NamedTuple):
    """One window of a text, the number of its tokens, at least 1, and the headings that
    it stands under, outermost first, without those that it holds itself."""

    span: Span
    tokens: int
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkedText:
    """The chunks of one text, by their start, and the whole text's tokens."""

    chunks: Sequence[Chunk]
    tokens: int


@dataclass(frozen=True, slots=True)
class Identity:
    """The model that did the work: its name, and its revision as hex digits."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Number of tokens of each text; `estimated` when the tokenizer failed, and then
    the revision is empty. `cache` is None where it did not come into question."""

    model: Identity
    counts: Sequence[int]
    estimated: bool
    cache: CacheUse | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked for; revision and size only while it is loaded."""

    name: str
    revision: str
    vocabulary_size: int
    is_default: bool
    loaded: bool
