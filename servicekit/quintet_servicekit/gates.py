"""What decides about a call before the service sees it."""

from __future__ import annotations

from typing import Any, Protocol

from quintet_servicekit.identity import Identity
from quintet_servicekit.incoming import Metadata


class Authenticator(Protocol):
    """Tells whom a call is made for."""

    async def identify(self, method: str, metadata: Metadata) -> Identity:
        """Return it; `method` is as in "quintet.embedder.v1.EmbedderService/Embed".
        Raises `ServiceError` for a call that may not be made."""
        ...


class Guard(Protocol):
    """Decides about calls whose caller is known."""

    def around(self, method: str, behaviour: Any, *, streams: bool) -> Any:
        """Return a method's behaviour with what stands before and after it. It raises
        `ServiceError` for what it refuses."""
        ...
