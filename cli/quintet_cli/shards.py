"""The share of many documents that one of several runs brings in."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index`, from 0, of `count`. Each id is in exactly one."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that "3/8" names. Raises ValueError."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not found or not int(found[1]) < int(found[2]):
            raise ValueError(f"{text!r} is not I/N with I from 0 to N-1")
        return cls(int(found[1]), int(found[2]))

    def has(self, document_id: str) -> bool:
        """Whether the document is of this share: by its id alone, so that runs need not know
        of each other, and one that is repeated takes the same."""
        digest = hashlib.sha256(document_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index


WHOLE = Shard(0, 1)
