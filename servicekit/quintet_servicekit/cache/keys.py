"""Keys of cache entries."""

from __future__ import annotations

from hashlib import blake2b


def key_of(*parts: str | bytes | int) -> str:
    """Return a key of 32 hex digits for `parts`, in their order.

    Parts are told apart by type and length, so that ("ab", "c"), ("a", "bc") and
    ("a", b"bc") have three keys. 128 bits: two keys of a trillion collide with a
    probability of 1e-15. Put in everything that the value depends on: tenant,
    collection, the model's revision, the template's, each setting of the request.
    """
    digest = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            kind, content = b"s", part.encode("utf-8", "surrogatepass")
        elif isinstance(part, bytes):
            kind, content = b"b", part
        else:
            kind, content = b"i", b"%d" % part
        digest.update(b"%b%d:" % (kind, len(content)))
        digest.update(content)
    return digest.hexdigest()
