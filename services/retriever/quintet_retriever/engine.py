"""The retriever's work: finds the collection, checks vectors against it, calls the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from quintet_retriever import vectors
from quintet_retriever.filters import Condition
from quintet_retriever.models import (
    Collection,
    CollectionGoneError,
    CollectionKey,
    Document,
    DocumentInput,
    Hit,
    Mode,
    NewCollection,
    NewDocument,
    SearchQuery,
    SearchRequest,
    WrittenDocument,
)
from quintet_servicekit.errors import Reason, ServiceError, Violation

T = TypeVar("T")

_REASONS_OF_AN_OLD_KEY = frozenset({Reason.DIMENSION_MISMATCH, Reason.MODEL_MISMATCH})
"""What a search or write meets, before it reaches the store, when the collection was
made anew with other settings."""


class Store(Protocol):
    """Where collections are kept. Each call is one transaction; those with a key
    raise `CollectionGoneError` when that collection is not there any more."""

    async def create_collection(self, new: NewCollection) -> Collection:
        """Make the collection unless its name is taken; return the one of that name."""

    async def find_collection(self, name: str) -> Collection | None:
        """Return the collection of that name."""

    async def list_collections(self, after: str, limit: int) -> Sequence[Collection]:
        """Return at most `limit` collections by name, from the first after `after`."""

    async def delete_collection(self, name: str) -> int | None:
        """Delete the collection; return its number of documents, None without it."""

    async def write_document(self, key: CollectionKey, new: NewDocument) -> WrittenDocument:
        """Write the document, replacing one of its id whole."""

    async def read_document(
        self, key: CollectionKey, document_id: str, *, include_content: bool
    ) -> Document | None:
        """Return the document of that id."""

    async def list_documents(
        self, key: CollectionKey, after: str, limit: int, condition: Condition | None
    ) -> Sequence[Document]:
        """Return at most `limit` documents by id, from the first after `after`."""

    async def delete_document(self, key: CollectionKey, document_id: str) -> int | None:
        """Delete the document; return its number of chunks, None without it."""

    async def search(self, key: CollectionKey, query: SearchQuery) -> Sequence[Hit]:
        """Return the hits of the query, best first."""


class Engine:
    """Collections, documents and searches, over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Keys by name spare a round trip a call. They cannot mislead: a deleted
        # collection's key leads to no table, never to another's.
        self._keys: dict[str, CollectionKey] = {}

    async def create_collection(self, new: NewCollection) -> Collection:
        """Make the collection, or return the one with the same embedding settings.

        Raises COLLECTION_EXISTS when the name is taken by one with others.
        """
        found = await self._store.create_collection(new)
        wanted = (new.embedding_model, new.embedding_revision, new.dimension)
        if wanted != (found.embedding_model, found.key.embedding_revision, found.key.dimension):
            raise ServiceError(
                Reason.COLLECTION_EXISTS,
                "a collection of that name has another embedding model, revision or dimension",
                metadata={"collection": new.name},
            )
        self._keys[new.name] = found.key
        return found

    async def get_collection(self, name: str) -> Collection:
        """Return the collection. Raises COLLECTION_NOT_FOUND."""
        found = await self._store.find_collection(name)
        if found is None:
            self._keys.pop(name, None)
            raise _no_collection(name)
        self._keys[name] = found.key
        return found

    async def list_collections(self, after: str, limit: int) -> Sequence[Collection]:
        """Return at most `limit` collections by name, from the first after `after`."""
        return await self._store.list_collections(after, limit)

    async def delete_collection(self, name: str) -> int:
        """Delete the collection and return its number of documents.

        Raises COLLECTION_NOT_FOUND.
        """
        self._keys.pop(name, None)
        deleted = await self._store.delete_collection(name)
        if deleted is None:
            raise _no_collection(name)
        return deleted

    async def upsert(
        self, collection: str, documents: Sequence[DocumentInput], embedding_revision: str
    ) -> list[WrittenDocument]:
        """Write the documents, one transaction each, after checking all of them.

        Raises COLLECTION_NOT_FOUND, MODEL_MISMATCH, DIMENSION_MISMATCH or
        INVALID_FIELD (a vector that is zero or not finite) before the first write.
        """

        async def write(key: CollectionKey) -> list[WrittenDocument]:
            _check_revision(collection, key, embedding_revision)
            ready = [
                NewDocument(document, _embeddings(f"documents[{i}]", document, key.dimension))
                for i, document in enumerate(documents)
            ]
            return [await self._store.write_document(key, new) for new in ready]

        return await self._in(collection, write)

    async def get_document(
        self, collection: str, document_id: str, *, include_content: bool
    ) -> Document:
        """Return the document. Raises COLLECTION_NOT_FOUND or DOCUMENT_NOT_FOUND."""
        found = await self._in(
            collection,
            lambda key: self._store.read_document(
                key, document_id, include_content=include_content
            ),
        )
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

    async def delete_document(self, collection: str, document_id: str) -> int:
        """Delete the document and return its number of chunks.

        Raises COLLECTION_NOT_FOUND or DOCUMENT_NOT_FOUND.
        """
        deleted = await self._in(
            collection, lambda key: self._store.delete_document(key, document_id)
        )
        return _present(deleted, collection, document_id)

    async def search(self, collection: str, request: SearchRequest) -> Sequence[Hit]:
        """Return at most `request.k` hits, best first.

        Raises COLLECTION_NOT_FOUND, MODEL_MISMATCH, DIMENSION_MISMATCH or
        INVALID_FIELD (a vector that is zero or not finite).
        """

        async def find(key: CollectionKey) -> Sequence[Hit]:
            vector = None
            if request.mode is not Mode.LEXICAL:
                _check_revision(collection, key, request.embedding_revision)
                vector = _unit_rows([("vector", request.vector)], key.dimension)[0]
            query = SearchQuery(request.mode, request.text, vector, request.k, request.condition)
            return await self._store.search(key, query)

        return await self._in(collection, find)

    async def _in(self, name: str, work: Callable[[CollectionKey], Awaitable[T]]) -> T:
        """Return what `work` returns for the collection of that name."""
        known = self._keys.get(name)
        if known is not None:
            try:
                return await work(known)
            except CollectionGoneError:
                self._keys.pop(name, None)
            except ServiceError as error:
                if error.reason not in _REASONS_OF_AN_OLD_KEY:
                    raise
            # Deleted through another replica, perhaps, and made anew.
        key = (await self.get_collection(name)).key
        try:
            return await work(key)
        except CollectionGoneError:
            self._keys.pop(name, None)
            raise _no_collection(name) from None


def _embeddings(field: str, document: DocumentInput, dimension: int) -> NDArray[np.float32]:
    return _unit_rows(
        [(f"{field}.chunks[{i}].vector", chunk.vector) for i, chunk in enumerate(document.chunks)],
        dimension,
    )


def _unit_rows(packed: Sequence[tuple[str, bytes]], dimension: int) -> NDArray[np.float32]:
    for field, data in packed:
        if len(data) != dimension * vectors.FLOAT_BYTES:
            actual = len(data) // vectors.FLOAT_BYTES
            raise ServiceError(
                Reason.DIMENSION_MISMATCH,
                f"{field} holds {actual} numbers, and the collection's vectors have {dimension}",
                metadata={"expected": str(dimension), "actual": str(actual)},
                violations=[Violation(field, f"must hold {dimension} numbers")],
            )
    rows = vectors.unpacked([data for _, data in packed], dimension)
    faults = [
        Violation(packed[i][0], "must hold finite numbers, not all of them zero")
        for i in vectors.directionless(rows)
    ]
    if faults:
        raise ServiceError(
            Reason.INVALID_FIELD, f"{faults[0].field} {faults[0].description}", violations=faults
        )
    return vectors.normalised(rows)


def _check_revision(collection: str, key: CollectionKey, revision: str) -> None:
    if revision and revision != key.embedding_revision:
        raise ServiceError(
            Reason.MODEL_MISMATCH,
            "the vectors were made by another revision of the embedding model",
            metadata={
                "collection": collection,
                "expected": key.embedding_revision,
                "actual": revision,
            },
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
