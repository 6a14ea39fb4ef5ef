"""The links' work: finds the collection, checks what must exist, calls the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from quintet_retriever.engine import News
from quintet_retriever.links.models import (
    Direction,
    Link,
    LinkQuery,
    LinkType,
    NewLink,
    PassageQuery,
    RelatedDocument,
    RelatedPassage,
    RelatedQuery,
    Seed,
    Status,
    Suggestion,
)
from quintet_retriever.links.passages import (
    FAN_OUT,
    REACHED,
    SEED_DOCUMENTS,
    links_to_new,
    search_of,
    stretches_of,
)
from quintet_retriever.links.relating import Walk
from quintet_retriever.models import CollectionKey, Hit, SearchQuery
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.errors import Reason, ServiceError

T = TypeVar("T")

FROM_START: tuple[Any, ...] = ("", "", "", 0, 0)
TO_START: tuple[Any, ...] = ("", 0, 0)


class Collections(Protocol):
    """Who knows the collections by name."""

    async def in_collection(self, name: str, work: Callable[[CollectionKey], Awaitable[T]]) -> T:
        """Return what `work` returns for the collection of that name."""


class LinkStore(Protocol):
    """Where links are kept; see `PostgresLinks` for each."""

    async def keys(self, key: CollectionKey, ids: Sequence[str]) -> dict[str, int]: ...
    async def links_from(
        self,
        key: CollectionKey,
        document_id: str | None,
        types: Collection[LinkType],
        position: Sequence[Any],
        limit: int,
        *,
        dangling: bool = False,
    ) -> Sequence[tuple[Link, str]]: ...
    async def links_to(
        self,
        key: CollectionKey,
        document_key: int,
        types: Collection[LinkType],
        position: Sequence[Any],
        limit: int,
    ) -> Sequence[Link]: ...
    async def neighbours(
        self,
        key: CollectionKey,
        keys: Sequence[int],
        direction: Direction,
        types: Collection[LinkType],
        limit: int,
    ) -> Sequence[tuple[int, Link]]: ...
    async def best_passages(
        self, key: CollectionKey, query: SearchQuery, documents: Sequence[str]
    ) -> Sequence[Hit]: ...
    async def put(
        self, key: CollectionKey, new: NewLink, status: Status, confidence: float | None = None
    ) -> tuple[Epoch, bool] | None: ...
    async def delete(
        self, key: CollectionKey, source_id: str, target_id: str, link_type: LinkType
    ) -> Epoch | None: ...
    async def suggest(
        self,
        key: CollectionKey,
        document_id: str,
        limit: int,
        least: float,
        target: str | None = None,
    ) -> Sequence[Suggestion]: ...
    async def rename(self, key: CollectionKey, old: str, new: str) -> Epoch | None: ...


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list of links: on which side of a document, and after what there."""

    side: Direction = Direction.FROM
    after: tuple[Any, ...] = FROM_START


class LinkEngine:
    """Links over a store. Methods raise COLLECTION_NOT_FOUND, and DOCUMENT_NOT_FOUND for a
    document that is not there."""

    def __init__(self, collections: Collections, store: LinkStore, news: News) -> None:
        self._collections = collections
        self._store = store
        self._news = news

    async def create(self, collection: str, new: NewLink) -> tuple[Epoch, bool]:
        """Make a link; return the epoch, and whether it is new."""

        async def work(key: CollectionKey) -> tuple[Epoch, bool]:
            await self._present(collection, key, new.source_id, new.target_id)
            made = await self._store.put(key, new, Status.CREATED)
            return self._there(made, collection, new.source_id)

        return await self._told(collection, work)

    async def delete(
        self, collection: str, source_id: str, target_id: str, link_type: LinkType
    ) -> Epoch:
        """Delete a link that a caller made. Raises LINK_NOT_FOUND."""

        async def work(key: CollectionKey) -> tuple[Epoch, None]:
            epoch = await self._store.delete(key, source_id, target_id, link_type)
            if epoch is None:
                raise ServiceError(
                    Reason.LINK_NOT_FOUND,
                    "no caller made such a link",
                    metadata={
                        "collection": collection,
                        "source_id": source_id,
                        "target_id": target_id,
                    },
                )
            return epoch, None

        return (await self._told(collection, work))[0]

    async def list_links(
        self, collection: str, query: LinkQuery, after: Position, limit: int
    ) -> list[tuple[Link, Position]]:
        """Return at most `limit` links after a position, each with its own."""

        async def work(key: CollectionKey) -> list[tuple[Link, Position]]:
            found: list[tuple[Link, Position]] = []
            identifier = query.document_id
            if identifier:
                own = (await self._present(collection, key, identifier))[identifier]
            if after.side is Direction.FROM and (
                not identifier or query.direction is not Direction.TO
            ):
                found = _placed(
                    await self._store.links_from(
                        key, identifier or None, query.types, after.after, limit
                    )
                )
            if identifier and query.direction is not Direction.FROM and len(found) < limit:
                start = after.after if after.side is Direction.TO else TO_START
                links = await self._store.links_to(key, own, query.types, start, limit - len(found))
                found += [
                    (it, Position(Direction.TO, (it.source_id, int(it.type), int(it.status))))
                    for it in links
                ]
            return found

        return await self._collections.in_collection(collection, work)

    async def list_dangling(
        self, collection: str, after: Position, limit: int
    ) -> list[tuple[Link, Position]]:
        """Return at most `limit` links that lead nowhere after a position, each with its own."""

        async def work(key: CollectionKey) -> list[tuple[Link, Position]]:
            return _placed(
                await self._store.links_from(key, None, (), after.after, limit, dangling=True)
            )

        return await self._collections.in_collection(collection, work)

    async def suggest(
        self, collection: str, document_id: str, limit: int, least: float
    ) -> Sequence[Suggestion]:
        """Return at most `limit` documents to link to, of at least that confidence."""

        async def work(key: CollectionKey) -> Sequence[Suggestion]:
            await self._present(collection, key, document_id)
            return await self._store.suggest(key, document_id, limit, least)

        return await self._collections.in_collection(collection, work)

    async def accept(self, collection: str, new: NewLink) -> tuple[Epoch, bool, float]:
        """Make a link of a suggestion; return the epoch, whether it is new, and the
        suggestion's confidence as of now."""
        confidence = 0.0

        async def work(key: CollectionKey) -> tuple[Epoch, bool]:
            nonlocal confidence
            await self._present(collection, key, new.source_id, new.target_id)
            near = await self._store.suggest(key, new.source_id, 1, 0.0, new.target_id)
            confidence = near[0].confidence if near else 0.0
            made = await self._store.put(key, new, Status.ACCEPTED, confidence)
            return self._there(made, collection, new.source_id)

        epoch, created = await self._told(collection, work)
        return epoch, created, confidence

    async def dismiss(self, collection: str, source_id: str, target_id: str) -> Epoch:
        """See to it that a suggestion is not made again."""
        new = NewLink(source_id, target_id, LinkType.RELATED)

        async def work(key: CollectionKey) -> tuple[Epoch, bool]:
            await self._present(collection, key, source_id, target_id)
            made = await self._store.put(key, new, Status.DISMISSED)
            return self._there(made, collection, source_id)

        return (await self._told(collection, work))[0]

    async def related(
        self, collection: str, query: RelatedQuery
    ) -> tuple[list[RelatedDocument], bool]:
        """Return the neighbourhood, and whether some links were not followed."""

        async def work(key: CollectionKey) -> tuple[list[RelatedDocument], bool]:
            return await self._reached(key, stretches_of(query.seeds), query)

        return await self._collections.in_collection(collection, work)

    async def related_passages(self, collection: str, query: PassageQuery) -> list[RelatedPassage]:
        """Return the best passages one link away from what a search found, one a document.

        Raises MODEL_MISMATCH, DIMENSION_MISMATCH or INVALID_FIELD for the vector.
        """
        found = stretches_of(query.seeds)
        step = RelatedQuery(query.seeds, hops=1, fan_out=FAN_OUT, limit=REACHED)

        async def work(key: CollectionKey) -> list[RelatedPassage]:
            search = search_of(collection, key, query)
            followed = dict(list(found.items())[:SEED_DOCUMENTS])
            reached, _ = await self._reached(key, followed, step)
            links = links_to_new(reached, found)
            if not links:
                return []
            hits = await self._store.best_passages(key, search, list(links))
            return [RelatedPassage(hit, links[hit.document_id]) for hit in hits]

        return await self._collections.in_collection(collection, work)

    async def _reached(
        self, key: CollectionKey, seeds: Mapping[str, Sequence[Seed]], query: RelatedQuery
    ) -> tuple[list[RelatedDocument], bool]:
        """Return the neighbourhood of the documents `seeds`, and whether some links were not
        followed."""
        known = await self._store.keys(key, list(seeds))
        if not known:
            return [], False
        walk = Walk({known[it]: several for it, several in seeds.items() if it in known})
        truncated = False
        for _ in range(query.hops):
            if not walk.frontier:
                break
            links = await self._store.neighbours(
                key, walk.frontier, query.direction, query.types, query.fan_out + 1
            )
            followed = _at_most(links, query.fan_out)
            truncated |= len(followed) < len(links)
            walk.step(followed)
        return walk.ranked(query.limit), truncated

    async def rename(self, collection: str, old: str, new: str) -> Epoch:
        """Give a document another id. Raises DOCUMENT_EXISTS."""

        async def work(key: CollectionKey) -> tuple[Epoch, None]:
            return self._there(await self._store.rename(key, old, new), collection, old), None

        return (await self._told(collection, work))[0]

    async def _told(
        self, collection: str, work: Callable[[CollectionKey], Awaitable[tuple[Epoch, T]]]
    ) -> tuple[Epoch, T]:
        """Return what a write returns, once its epoch is announced."""
        written = await self._collections.in_collection(collection, work)
        await self._news.announce(collection, written[0])
        return written

    async def _present(self, collection: str, key: CollectionKey, *ids: str) -> dict[str, int]:
        known = await self._store.keys(key, ids)
        for identifier in ids:
            self._there(known.get(identifier), collection, identifier)
        return known

    @staticmethod
    def _there(found: T | None, collection: str, document_id: str) -> T:
        if found is None:
            raise ServiceError(
                Reason.DOCUMENT_NOT_FOUND,
                "the collection has no document with that id",
                metadata={"collection": collection, "document_id": document_id},
            )
        return found


def _placed(links: Sequence[tuple[Link, str]]) -> list[tuple[Link, Position]]:
    return [
        (
            it,
            Position(
                Direction.FROM,
                (it.source_id, it.target_id, dangling, int(it.type), int(it.status)),
            ),
        )
        for it, dangling in links
    ]


def _at_most(links: Sequence[tuple[int, Link]], fan_out: int) -> list[tuple[int, Link]]:
    """Return the first `fan_out` links of each document and direction."""
    counts: dict[tuple[int, bool], int] = {}
    kept = []
    for near, link in links:
        side = (near, link.source_key == near)
        counts[side] = counts.get(side, 0) + 1
        if counts[side] <= fan_out:
            kept.append((near, link))
    return kept
