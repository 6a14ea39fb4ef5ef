"""Kept vectors: each text is computed once for a model's revision.

Queries and passages are tiers of their own, so that a bulk ingest, whose passages are
hardly ever asked for again, does not push the queries out of memory.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable, Sequence

from quintet_embedder.models import Embedding, Purpose
from quintet_servicekit.cache import Cache, CacheSettings, Codec, Remote, key_of
from quintet_servicekit.cache.use import CacheUse, use_of

QUERIES = "l2"
PASSAGES = "l2-passages"
SCHEMA = 1
"""Raised with every change of what `CODEC` writes."""

_HEADER = struct.Struct("<IB")
"""Tokens that the model read, and whether the end was cut off; the vector follows."""

Compute = Callable[[Sequence[int]], Awaitable[Sequence[Embedding]]]
"""Computes the texts of the indexes given, in their order."""


def encode(embedding: Embedding) -> bytes:
    """Return an embedding's binary form."""
    return _HEADER.pack(embedding.tokens, embedding.truncated) + embedding.vector


def decode(raw: bytes) -> Embedding:
    """Return the embedding of a binary form. Raises ValueError or `struct.error`."""
    tokens, truncated = _HEADER.unpack_from(raw)
    vector = raw[_HEADER.size :]
    if truncated > 1 or not vector or len(vector) % 4:
        raise ValueError("no embedding")
    return Embedding(vector, tokens, bool(truncated))


CODEC = Codec(encode, decode)


class VectorCache:
    """Implements `engine.Vectors`, in memory and, where there is one, in Redis.

    `passage_share` of the settings' memory is for passages, the rest for queries.
    """

    def __init__(
        self, settings: CacheSettings, remote: Remote | None, *, passage_share: float
    ) -> None:
        passages = int(settings.memory_bytes * passage_share)

        def tier(name: str, memory_bytes: int) -> Cache[Embedding]:
            sized = settings.model_copy(update={"memory_bytes": memory_bytes})
            return Cache(name, CODEC, sized, remote, schema=SCHEMA)

        self._queries = tier(QUERIES, settings.memory_bytes - passages)
        self._passages = tier(PASSAGES, passages)

    @property
    def tiers(self) -> list[Cache[Embedding]]:
        """Its tiers."""
        return [self._queries, self._passages]

    async def get_or_compute(
        self,
        revision: str,
        texts: Sequence[str],
        purpose: Purpose,
        *,
        truncate: bool,
        compute: Compute,
    ) -> tuple[list[Embedding], CacheUse]:
        """Return the embedding of each text, those that are not kept by one call of
        `compute`, which names equal texts once; raises what it raises.

        `texts` are those that the model reads, prompts included. One look-up asks Redis at
        most once. Lone texts that are equal and asked for at the same time are computed once.
        """
        cache = self._queries if purpose is Purpose.QUERY else self._passages
        keys = [key_of(revision, int(truncate), text) for text in texts]
        if len(keys) == 1:

            async def load() -> Embedding:
                [embedding] = await compute([0])
                return embedding

            # Not across replicas: to wait for another one's costs more than to compute.
            one = await cache.get_or_load(keys[0], load, across_replicas=False)
            return [one.value], use_of(cache.tier, [one])
        found = await cache.get_many(keys)
        use = use_of(cache.tier, found)
        embeddings = {key: it.value for key, it in zip(keys, found, strict=True) if it is not None}
        missing: dict[str, int] = {}
        for index, key in enumerate(keys):
            if key not in embeddings:
                missing.setdefault(key, index)
        if missing:
            began = time.perf_counter()
            computed = await compute(list(missing.values()))
            each = (time.perf_counter() - began) / len(missing)
            fresh = dict(zip(missing, computed, strict=True))
            cache.put_many(fresh.items(), cost_seconds=each)
            embeddings |= fresh
        return [embeddings[key] for key in keys], use

    async def aclose(self) -> None:
        """End what is being computed."""
        for cache in self.tiers:
            await cache.aclose()
