"""One call's usage, as it stands in the outbox, and sums of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Used(NamedTuple):
    """What a call took of one model; amounts in nano-units of the currency."""

    model: str
    input: int = 0
    cached_input: int = 0
    output: int = 0
    embedding: int = 0
    cost: int = 0
    saved: int = 0


class Entry(NamedTuple):
    """What one call took, or one part of it; `calls` is 1 the first time, else 0. `day` as in
    "2026-11-01"."""

    tenant: str
    key: str
    collection: str
    day: str
    currency: str
    calls: int
    used: list[Used]

    def packed(self) -> bytes:
        """Return the entry as one line of the outbox."""
        return json.dumps(self, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def unpacked(cls, line: bytes) -> Entry:
        """Return the entry of a line. Raises `ValueError` for one that is damaged."""
        try:
            tenant, key, collection, day, currency, calls, used = json.loads(line)
            taken = [Used(*it) for it in used]
        except TypeError as error:
            raise ValueError("this is no entry") from error
        return cls(tenant, key, collection, day, currency, calls, taken)


class Row(NamedTuple):
    """The key of a sum."""

    tenant: str
    day: str
    collection: str
    key: str
    model: str
    currency: str


@dataclass(slots=True)
class Sums:
    """Sums by row: calls, then the numbers of `Used` in their order."""

    rows: dict[Row, list[int]] = field(default_factory=dict)

    def add(self, entries: Iterable[Entry]) -> Sums:
        """Add entries."""
        for entry in entries:
            models = {it.model for it in entry.used} | {""}
            for model in models:
                self._row(entry, model)[0] += entry.calls
            for used in entry.used:
                row = self._row(entry, used.model)
                for place, number in enumerate(used[1:], start=1):
                    row[place] += number
        return self

    def _row(self, entry: Entry, model: str) -> list[int]:
        row = Row(entry.tenant, entry.day, entry.collection, entry.key, model, entry.currency)
        return self.rows.setdefault(row, [0] * 7)
