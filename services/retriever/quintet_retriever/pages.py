"""Tokens of pages: opaque to callers, and good for the query and the tenant they came from
only.

A token carries the last key of its page, and a digest of that key, the query and the tenant.
It is no secret: whoever could forge one could as well list from the start.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import current

_DIGEST_BYTES = 12
"""Enough that damage or a mix-up never goes unnoticed; nothing is guarded by it."""


def page_token(last_key: str, *query: str | bytes) -> str:
    """Return the token of the page after `last_key` in the listing that the parts
    of `query` stand for."""
    data = last_key.encode()
    return base64.urlsafe_b64encode(_digest(data, query) + data).decode()


def key_of_token(token: str, *query: str | bytes) -> str:
    """Return the key after which the token's page begins; "" for no token.

    Raises `ServiceError` INVALID_PAGE_TOKEN for one that is damaged or came from
    another query.
    """
    if not token:
        return ""
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _invalid() from None
    digest, data = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
    # The digest is no secret: who makes a token up may put anything into it.
    if digest != _digest(data, query) or b"\0" in data:
        raise _invalid()
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _invalid() from None


def _digest(data: bytes, query: tuple[str | bytes, ...]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in (data, current().tenant, *query):
        encoded = part.encode() if isinstance(part, str) else part
        # Lengths keep "ab", "c" and "a", "bc" apart.
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


def _invalid() -> ServiceError:
    return ServiceError(
        Reason.INVALID_PAGE_TOKEN, "the page token is damaged or belongs to another query"
    )
