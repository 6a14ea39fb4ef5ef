"""One model's tokenizer, over the `tokenizers` library.

Long texts are cut into blocks at white space, which no tokenizer that we know joins
tokens across: the library needs 240 bytes a character for one long text and half as
many cores as for blocks (8,000,000 characters: 2 GB and 11 s whole, 0.4 GB and 5 s in
blocks, on two cores).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

from quintet_tokenizer.models import IntArray, Tokens

TINY_CHARS = 300
"""Characters up to which a call is done on the event loop. A Count over gRPC then takes
0.6 ms instead of 0.7; from 500 characters on there is no gain. It also never waits
behind a large document."""

_BLOCK_CHARS = 32_768
"""Characters of a block: beyond this, larger blocks gain nothing."""

_GROUP_CHARS = 8 * _BLOCK_CHARS
"""Characters that go to the library at once: enough for every core, and about 0.15 s,
for which another call may have to wait."""


class LoadedTokenizer:
    """A tokenizer in memory, made from the bytes of its tokenizer.json.

    The truncation and padding that the file may prescribe are turned off. Safe to
    use from several threads. Raises ValueError for bytes that are no tokenizer.
    """

    def __init__(self, data: bytes) -> None:
        with _panics_as_errors():
            self._tokenizer = Tokenizer.from_buffer(data)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self.vocabulary_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
            self.special_tokens: int = self._tokenizer.num_special_tokens_to_add(False)
        self.revision = hashlib.sha256(data).hexdigest()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without special tokens."""
        with _panics_as_errors():
            if sum(map(len, texts)) <= TINY_CHARS:
                # Not as a batch: a batch waits for the library's threads, which a
                # large document may occupy.
                encode = self._tokenizer.encode
                return [len(encode(text, add_special_tokens=False)) for text in texts]
            counts = [0] * len(texts)
            for group in _groups(texts):
                encodings = self._tokenizer.encode_batch_fast(
                    [block for _, _, block in group], add_special_tokens=False
                )
                for (index, _, _), encoding in zip(group, encodings, strict=True):
                    counts[index] += len(encoding)
            return counts

    def offsets(self, texts: Sequence[str]) -> list[IntArray]:
        """Return the offsets of each text's tokens, int64 [tokens, 2], in code points."""
        with _panics_as_errors():
            parts: list[list[IntArray]] = [[] for _ in texts]
            for group in _groups(texts):
                encodings = self._tokenizer.encode_batch(
                    [block for _, _, block in group], add_special_tokens=False
                )
                for (index, start, _), encoding in zip(group, encodings, strict=True):
                    flat = chain.from_iterable(encoding.offsets)
                    array = np.fromiter(flat, np.int64, 2 * len(encoding))
                    parts[index].append(array.reshape(-1, 2) + start)
            return [np.concatenate(part) for part in parts]

    def encode(self, texts: Sequence[str], *, special: bool, offsets: bool) -> list[Tokens]:
        """Return the tokens of each text, with special tokens if `special`, and with
        offsets if asked, which are (0, 0) for a special token."""
        with _panics_as_errors():
            if offsets:
                return [
                    Tokens(encoding.ids, encoding.offsets)
                    for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=special)
                ]
            return [
                Tokens(encoding.ids, None)
                for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=special)
            ]

    def decode(self, sequences: Sequence[Sequence[int]], *, keep_special: bool) -> list[str]:
        """Return the text of each sequence of ids, all below `vocabulary_size`."""
        with _panics_as_errors():
            return self._tokenizer.decode_batch(sequences, skip_special_tokens=not keep_special)


def blocks(text: str, size: int = _BLOCK_CHARS) -> Iterator[tuple[int, int]]:
    """Yield the (start, end) of consecutive pieces that make up `text`, each of at most
    `size` characters; at least one piece, which may be empty.

    A cut stands before the last white space of a run, where it changes no token: what
    splits words there takes at most one space into the next word. A run of `size`
    characters without white space is cut anywhere.
    """
    start = 0
    while len(text) - start > size:
        limit = start + size
        cut = next(
            (
                at
                for at in range(limit - 1, start, -1)
                if text[at].isspace() and not text[at + 1].isspace()
            ),
            limit,
        )
        yield start, cut
        start = cut
    yield start, len(text)


def _groups(texts: Sequence[str]) -> Iterator[list[tuple[int, int, str]]]:
    """Yield the blocks of all texts as (index of the text, start, block), in groups."""
    group: list[tuple[int, int, str]] = []
    chars = 0
    for index, text in enumerate(texts):
        for start, end in blocks(text):
            group.append((index, start, text[start:end]))
            chars += end - start
            if chars >= _GROUP_CHARS:
                yield group
                group, chars = [], 0
    if group:
        yield group


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Turn a panic of the library, which is no `Exception`, into a RuntimeError."""
    try:
        yield
    except Exception as error:
        # The library raises bare `Exception` for a malformed file.
        raise error if type(error) is not Exception else ValueError(str(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError("the tokenizers library panicked") from error
