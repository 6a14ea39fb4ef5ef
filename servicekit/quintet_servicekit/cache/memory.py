"""Entries in this process's memory: least recently used out first, bounded in bytes.

Not thread-safe: it belongs to the event loop. Every operation but `held` and `clear` is O(1),
amortised over the entries that it drops.
"""

from __future__ import annotations

from collections import OrderedDict

from quintet_servicekit.cache.envelope import Envelope

ENTRY_BYTES = 512
"""Fixed cost of an entry beside the characters of its key and the bytes of its payload:
both objects' headers, the envelope with its numbers, the dictionary's slot and the
list's node. Measured with tracemalloc at 420 to 500 bytes; a test holds it an upper bound."""


class Memory:
    """Encoded values by key, in at most `max_bytes`.

    Keys are ASCII, as `key_of` makes them: a character is counted as a byte.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[str, Envelope] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Bytes that the entries take, overhead included; never more than `max_bytes`."""
        return self._bytes

    def get(self, key: str, now_ms: float) -> Envelope | None:
        """Return the entry, now the most recently used, unless it is past its hard expiry."""
        envelope = self._entries.get(key)
        if envelope is None:
            return None
        if envelope.hard_ms <= now_ms:
            self.discard(key)
            return None
        self._entries.move_to_end(key)
        return envelope

    def put(self, key: str, envelope: Envelope) -> None:
        """Keep the entry in place of an earlier one, and drop the least recently used ones
        until all fit. One that is larger than the whole memory is not kept."""
        self.discard(key)
        size = _size(key, envelope)
        if size > self.max_bytes:
            return
        self._entries[key] = envelope
        self._bytes += size
        while self._bytes > self.max_bytes:
            oldest, dropped = self._entries.popitem(last=False)
            self._bytes -= _size(oldest, dropped)

    def discard(self, key: str) -> None:
        """Drop the entry if there is one."""
        envelope = self._entries.pop(key, None)
        if envelope is not None:
            self._bytes -= _size(key, envelope)

    def held(self, prefix: str) -> tuple[int, int]:
        """Return how many entries there are whose keys begin with `prefix`, and their bytes;
        some 15 ms for 100,000 entries of whoever."""
        sizes = [_size(*entry) for entry in self._entries.items() if entry[0].startswith(prefix)]
        return len(sizes), sum(sizes)

    def clear(self, prefix: str) -> int:
        """Drop all entries whose keys begin with `prefix`; return how many there were."""
        keys = [key for key in self._entries if key.startswith(prefix)]
        for key in keys:
            self.discard(key)
        return len(keys)


def _size(key: str, envelope: Envelope) -> int:
    return len(key) + len(envelope.payload) + ENTRY_BYTES
