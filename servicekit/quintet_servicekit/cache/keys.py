"""Keys of cache entries: each belongs to a tenant."""

from __future__ import annotations

from hashlib import blake2b

from quintet_servicekit.identity import current

SEPARATOR = ":"
"""Stands between a tenant and a key; in neither."""


def owned(key: str) -> str:
    """Return the key as the present tenant's: how tiers and flights keep it, whoever made
    it, so that no two tenants meet in one."""
    return f"{current().tenant}{SEPARATOR}{key}"


def owner_of(key: str) -> str:
    """Return the tenant of a key that `owned` made."""
    return key.partition(SEPARATOR)[0]


def key_of(*parts: str | bytes | int) -> str:
    """Return a key of 32 hex digits for the present tenant and `parts`, in their order.

    Parts are told apart by type and length, so that ("ab", "c"), ("a", "bc") and
    ("a", b"bc") have three keys. 128 bits: two keys of a trillion collide with a
    probability of 1e-15. Put in everything that the value depends on: collection,
    the model's revision, the template's, each setting of the request.
    """
    digest = blake2b(digest_size=16)
    for part in (current().tenant, *parts):
        if isinstance(part, str):
            kind, content = b"s", part.encode("utf-8", "surrogatepass")
        elif isinstance(part, bytes):
            kind, content = b"b", part
        else:
            kind, content = b"i", b"%d" % part
        digest.update(b"%b%d:" % (kind, len(content)))
        digest.update(content)
    return digest.hexdigest()
