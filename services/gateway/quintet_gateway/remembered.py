"""What was found in a text, remembered by the text: the same chunks are read again and again.

What is remembered depends on the text and on this program alone, so it is never outdated,
and is nobody's: who asks for it has the text. Texts themselves are not held.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Generic, TypeVar

T = TypeVar("T")

ENTRY_BYTES = 288
"""Cost of an entry beside its result: the digest, its size, the dictionary's slot and the
list's node. Measured with tracemalloc; a test holds it an upper bound."""


class Remembered(Generic[T]):
    """The results of `compute`, which must depend on nothing but its text, for the texts that
    were asked for last.

    Holds at most `max_bytes`, of which each entry takes `ENTRY_BYTES` and its result's `size`;
    with 0 nothing is remembered. Of one event loop.
    """

    def __init__(
        self, compute: Callable[[str], T], size: Callable[[T], int], *, max_bytes: int
    ) -> None:
        self._compute = compute
        self._size = size
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, tuple[T, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Bytes of what is remembered; never more than `max_bytes`."""
        return self._bytes

    def __call__(self, text: str) -> T:
        """Return what `compute` returns for the text."""
        if not self._max_bytes:
            return self._compute(text)
        key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return entry[0]
        found = self._compute(text)
        size = self._size(found) + ENTRY_BYTES
        if size <= self._max_bytes:
            self._entries[key] = found, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, (_, dropped) = self._entries.popitem(last=False)
                self._bytes -= dropped
        return found
