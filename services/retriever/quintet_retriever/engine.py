"""The retriever's work: finds the collection, checks vectors against it, calls the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from quintet_retriever import vectors
from quintet_retriever.filters import Condition
from quintet_retriever.links.models import DocumentLinks
from quintet_retriever.models import (
    Collection,
    CollectionGoneError,
    CollectionKey,
    DeletedCollection,
    DeletedDocument,
    Document,
    DocumentChunks,
    DocumentInput,
    NewCollection,
    NewDocument,
    RequestKey,
    SearchRequest,
    SearchResult,
    WrittenDocument,
)
from quintet_retriever.searching import Searcher
from quintet_servicekit.cache.use import CacheUse
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.tenant_map import TenantMap

T = TypeVar("T")

_REASONS_OF_AN_OLD_KEY = frozenset({Reason.DIMENSION_MISMATCH, Reason.MODEL_MISMATCH})
"""What a search or write meets, before it reaches the store, when the collection was
made anew with other settings."""


_MAX_KEYS = 10_000
"""Collections that are remembered by their names, some 3 MB."""

_ATTEMPTS = 4
"""Looks at a collection that others replace again and again."""


class Store(Protocol):
    """Where collections are kept. Each call is one transaction; those with a key
    raise `CollectionGoneError` when that collection is not there any more.

    A write that is repeated with the same `once` changes nothing and returns what the first
    one did; it raises REQUEST_ID_REUSED if that was another."""

    async def create_collection(self, new: NewCollection, once: RequestKey | None) -> Collection:
        """Make the collection unless its name is taken; return the one of that name."""

    async def find_collection(self, name: str) -> Collection | None:
        """Return the collection of that name."""

    async def list_collections(self, after: str, limit: int) -> Sequence[Collection]:
        """Return at most `limit` collections by name, from the first after `after`."""

    async def delete_collection(
        self, name: str, once: RequestKey | None
    ) -> DeletedCollection | None:
        """Delete the collection; None without it."""

    async def switch_collections(
        self, name: str, other: str, expected: Epoch
    ) -> Mapping[str, Epoch] | None:
        """Exchange the names of two collections; return each name's new epoch, None
        without one of them. Raises CONFLICT if `name` is not at `expected`."""

    async def write_document(
        self, key: CollectionKey, new: NewDocument, once: RequestKey | None
    ) -> WrittenDocument:
        """Write the document, replacing one of its id whole."""

    async def read_chunks(self, key: CollectionKey, document_id: str) -> DocumentChunks | None:
        """Return the chunks of the document of that id, by their place."""

    async def read_document(
        self, key: CollectionKey, document_id: str, *, include_content: bool
    ) -> tuple[Document, Epoch] | None:
        """Return the document of that id, and the epoch at which it was read."""

    async def list_documents(
        self, key: CollectionKey, after: str, limit: int, condition: Condition | None
    ) -> Sequence[Document]:
        """Return at most `limit` documents by id, from the first after `after`."""

    async def delete_document(
        self, key: CollectionKey, document_id: str, once: RequestKey | None
    ) -> DeletedDocument | None:
        """Delete the document; None without it."""

    async def invalidate(self, key: CollectionKey, document_id: str | None) -> Epoch | None:
        """Raise the epoch as if the document, or without an id every document, had
        changed; None without the document."""


class News(Protocol):
    """Whom writes are told to before they are acknowledged."""

    async def announce(self, name: str, epoch: Epoch) -> None:
        """Return when nobody trusts an earlier epoch of the collection any more."""


class LinkReader(Protocol):
    """Who finds the links of a document's text."""

    async def read(self, document: DocumentInput) -> DocumentLinks:
        """Return the document's names and its links."""


class Engine:
    """Collections, documents and searches, over a store."""

    def __init__(
        self, store: Store, searcher: Searcher, news: News, link_reader: LinkReader
    ) -> None:
        self._store = store
        self._searcher = searcher
        self._news = news
        self._link_reader = link_reader
        # Keys by name spare a round trip a call. They cannot mislead: a deleted
        # collection's key leads to no table, never to another's.
        self._keys: TenantMap[CollectionKey] = TenantMap(_MAX_KEYS)

    async def create_collection(
        self, new: NewCollection, once: RequestKey | None = None
    ) -> Collection:
        """Make the collection, or return the one with the same embedding settings.

        Raises COLLECTION_EXISTS when the name is taken by one with others.
        """
        found = await self._store.create_collection(new, once)
        key = found.key
        wanted = (new.embedding_model, new.embedding_revision, new.dimension, new.language)
        if wanted != (
            found.embedding_model,
            key.embedding_revision,
            key.dimension,
            key.language,
        ):
            raise ServiceError(
                Reason.COLLECTION_EXISTS,
                "a collection of that name has another embedding model, revision, dimension"
                " or language",
                metadata={"collection": new.name},
            )
        self._keys.put(new.name, found.key)
        await self._news.announce(new.name, found.epoch)
        return found

    async def get_collection(self, name: str) -> Collection:
        """Return the collection. Raises COLLECTION_NOT_FOUND."""
        found = await self._store.find_collection(name)
        if found is None:
            self._keys.forget(name)
            raise _no_collection(name)
        self._keys.put(name, found.key)
        return found

    async def list_collections(self, after: str, limit: int) -> Sequence[Collection]:
        """Return at most `limit` collections by name, from the first after `after`."""
        return await self._store.list_collections(after, limit)

    async def delete_collection(
        self, name: str, once: RequestKey | None = None
    ) -> DeletedCollection:
        """Delete the collection and return what went with it.

        Raises COLLECTION_NOT_FOUND.
        """
        self._keys.forget(name)
        deleted = await self._store.delete_collection(name, once)
        if deleted is None:
            raise _no_collection(name)
        await self._news.announce(name, deleted.epoch)
        return deleted

    async def switch_collections(
        self, name: str, other: str, expected: Epoch
    ) -> Mapping[str, Epoch]:
        """Exchange the names of two collections; return each name's new epoch.

        Raises COLLECTION_NOT_FOUND, or CONFLICT if `name` was written since `expected`.
        """
        try:
            epochs = await self._store.switch_collections(name, other, expected)
        except CollectionGoneError:
            epochs = None
        if epochs is None:
            # Says which of them.
            for each in (name, other):
                await self.get_collection(each)
            raise ServiceError(Reason.CONFLICT, "a collection is being replaced; repeat the call")
        for each, epoch in epochs.items():
            self._keys.forget(each)
            await self._news.announce(each, epoch)
        return epochs

    async def upsert(
        self,
        collection: str,
        documents: Sequence[DocumentInput],
        embedding_revision: str,
        once: RequestKey | None = None,
    ) -> list[WrittenDocument]:
        """Write the documents, one transaction each, after checking all of them.

        Raises COLLECTION_NOT_FOUND, MODEL_MISMATCH, DIMENSION_MISMATCH or
        INVALID_FIELD (a vector that is zero or not finite) before the first write.
        """

        links = [await self._link_reader.read(document) for document in documents]

        async def write(key: CollectionKey) -> list[WrittenDocument]:
            vectors.check_revision(collection, key, embedding_revision)
            ready = [
                NewDocument(
                    document, _embeddings(f"documents[{i}]", document, key.dimension), links[i]
                )
                for i, document in enumerate(documents)
            ]
            return [
                await self._store.write_document(key, new, once and once.at(i))
                for i, new in enumerate(ready)
            ]

        written = await self._in(collection, write)
        await self._news.announce(collection, written[-1].epoch)
        return written

    async def get_document(
        self, collection: str, document_id: str, *, include_content: bool
    ) -> tuple[Document, Epoch]:
        """Return the document and the epoch at which it was read.

        Raises COLLECTION_NOT_FOUND or DOCUMENT_NOT_FOUND.
        """
        found = await self._in(
            collection,
            lambda key: self._store.read_document(
                key, document_id, include_content=include_content
            ),
        )
        return _present(found, collection, document_id)

    async def get_chunks(self, collection: str, document_id: str) -> DocumentChunks:
        """Return the document's chunks.

        Raises COLLECTION_NOT_FOUND or DOCUMENT_NOT_FOUND.
        """
        found = await self._in(collection, lambda key: self._store.read_chunks(key, document_id))
        return _present(found, collection, document_id)

    async def list_documents(
        self, collection: str, after: str, limit: int, condition: Condition | None
    ) -> Sequence[Document]:
        """Return at most `limit` documents by id, from the first after `after`.

        Raises COLLECTION_NOT_FOUND.
        """
        return await self._in(
            collection, lambda key: self._store.list_documents(key, after, limit, condition)
        )

    async def delete_document(
        self, collection: str, document_id: str, once: RequestKey | None = None
    ) -> DeletedDocument:
        """Delete the document and return what went with it.

        Raises COLLECTION_NOT_FOUND or DOCUMENT_NOT_FOUND.
        """
        deleted = await self._in(
            collection, lambda key: self._store.delete_document(key, document_id, once)
        )
        gone = _present(deleted, collection, document_id)
        await self._news.announce(collection, gone.epoch)
        return gone

    async def invalidate(self, collection: str, document_id: str) -> Epoch:
        """Raise the epoch for the document, or if its id is empty for the whole
        collection, and return it.

        Raises COLLECTION_NOT_FOUND or DOCUMENT_NOT_FOUND.
        """
        epoch = await self._in(
            collection, lambda key: self._store.invalidate(key, document_id or None)
        )
        raised = _present(epoch, collection, document_id)
        await self._news.announce(collection, raised)
        return raised

    async def search(
        self, collection: str, request: SearchRequest
    ) -> tuple[SearchResult, CacheUse]:
        """Return at most `request.k` hits, best first, or that they are unchanged; and
        what the cache did.

        Raises COLLECTION_NOT_FOUND and what `Searcher.search` raises.
        """
        return await self._in(
            collection, lambda key: self._searcher.search(collection, key, request)
        )

    async def in_collection(self, name: str, work: Callable[[CollectionKey], Awaitable[T]]) -> T:
        """Return what `work`, which finds or keeps something else of a collection, returns
        for that one.

        Raises COLLECTION_NOT_FOUND and what `work` raises, but for `CollectionGoneError`.
        """
        return await self._in(name, work)

    async def _in(self, name: str, work: Callable[[CollectionKey], Awaitable[T]]) -> T:
        """Return what `work` returns for the collection of that name."""
        known = self._keys.get(name)
        if known is not None:
            try:
                return await work(known)
            except CollectionGoneError:
                self._keys.forget(name)
            except ServiceError as error:
                if error.reason not in _REASONS_OF_AN_OLD_KEY:
                    raise
            # Deleted through another replica, perhaps, and made anew.
        for _ in range(_ATTEMPTS):
            key = (await self.get_collection(name)).key
            try:
                return await work(key)
            except CollectionGoneError:
                # Replaced by another of its name since we looked.
                self._keys.forget(name)
        raise ServiceError(Reason.CONFLICT, "the collection is being replaced; repeat the call")


def _embeddings(field: str, document: DocumentInput, dimension: int) -> NDArray[np.float32]:
    return vectors.unit_rows(
        [(f"{field}.chunks[{i}].vector", chunk.vector) for i, chunk in enumerate(document.chunks)],
        dimension,
    )


def _present(found: T | None, collection: str, document_id: str) -> T:
    if found is None:
        raise ServiceError(
            Reason.DOCUMENT_NOT_FOUND,
            "the collection has no document with that id",
            metadata={"collection": collection, "document_id": document_id},
        )
    return found


def _no_collection(name: str) -> ServiceError:
    return ServiceError(
        Reason.COLLECTION_NOT_FOUND,
        f"there is no collection {name}",
        metadata={"collection": name},
    )
