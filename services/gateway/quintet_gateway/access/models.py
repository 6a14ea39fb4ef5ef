"""What the parts of the access know of a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from quintet_servicekit.identity import Scope


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is stored. `hash` is of its secret; times are UTC; `expires` and
    `revoked` are None where there is no such time. `replaces` is the id of the key that it
    was made for by a rotation."""

    id: str
    tenant: str
    name: str
    scope: Scope
    hash: bytes = field(repr=False)
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    replaces: str = ""

    def ends(self) -> datetime | None:
        """Return from when on it is refused: by expiry, or by being revoked."""
        return min((it for it in (self.expires, self.revoked) if it is not None), default=None)
