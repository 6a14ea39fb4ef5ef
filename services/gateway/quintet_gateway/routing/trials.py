"""Which prompt template a question is given, of several that are tried.

The choice is a digest's: of the tenant and of what the caller names as a unit, or of the
question. So it is the same in every replica and each time, and kept answers hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

DEFAULT = "answer"
"""Name of the template of questions that are in no trial."""
_WHOLE = 2**64


def assigned(shares: Mapping[str, float], tenant: str, unit: str) -> str:
    """Return the template of a unit; `shares` are percentages by template."""
    if not shares:
        return DEFAULT
    digest = hashlib.blake2b(f"{tenant}\0{unit}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / _WHOLE * 100
    for name, share in sorted(shares.items()):
        if place < share:
            return name
        place -= share
    return DEFAULT
