"""Entries in this process's memory: least recently used out first, bounded in bytes.

Not thread-safe: it belongs to the event loop. Every operation but `clear` is O(1), amortised
over the entries that it drops.
"""

from __future__ import annotations

from collections import OrderedDict

from quintet_servicekit.cache.envelope import Envelope
from quintet_servicekit.cache.keys import owner_of

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
        # By owner, who may ask as often as they like: how many entries, and their bytes.
        self._held: dict[str, tuple[int, int]] = {}

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
        self._count(key, 1, size)
        while self._bytes > self.max_bytes:
            oldest, dropped = self._entries.popitem(last=False)
            self._count(oldest, -1, -_size(oldest, dropped))

    def discard(self, key: str) -> None:
        """Drop the entry if there is one."""
        envelope = self._entries.pop(key, None)
        if envelope is not None:
            self._count(key, -1, -_size(key, envelope))

    def held(self, owner: str) -> tuple[int, int]:
        """Return how many entries there are of an owner, and their bytes."""
        return self._held.get(owner, (0, 0))

    def clear(self, prefix: str) -> int:
        """Drop all entries whose keys begin with `prefix`; return how many there were."""
        keys = [key for key in self._entries if key.startswith(prefix)]
        for key in keys:
            self.discard(key)
        return len(keys)

    def _count(self, key: str, entries: int, size: int) -> None:
        self._bytes += size
        owner = owner_of(key)
        count, held = self._held.get(owner, (0, 0))
        if count + entries:
            self._held[owner] = count + entries, held + size
        else:
            del self._held[owner]


def _size(key: str, envelope: Envelope) -> int:
    return len(key) + len(envelope.payload) + ENTRY_BYTES
