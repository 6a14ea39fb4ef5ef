"""Keeps collections and documents in PostgreSQL, and raises the epochs of collections.

Every method is one round trip (`Database.run`), which is one transaction. A writer
first takes a share of the collection's row: `delete_collection` waits for writers
that have it and is waited for by those that do not. Its last statement raises the
collection's epoch: the row is then locked until the commit, so that epochs are raised
in the order of the commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from quintet_retriever.database import Database, Operation, Statement
from quintet_retriever.epoch_sql import INVALIDATION, WRITE, share_of
from quintet_retriever.filter_sql import FilterSql
from quintet_retriever.filters import Condition
from quintet_retriever.links.writing import link_statements
from quintet_retriever.models import (
    Chunk,
    Collection,
    CollectionKey,
    DeletedCollection,
    DeletedDocument,
    Document,
    DocumentChunks,
    NewCollection,
    NewDocument,
    RequestKey,
    WrittenDocument,
)
from quintet_retriever.once import keep, key_parameters, run_once
from quintet_retriever.settings import Settings
from quintet_retriever.tables import Tables
from quintet_retriever.vectors import bytes_of
from quintet_servicekit.consistency import LAST, Epoch
from quintet_servicekit.errors import Reason, ServiceError

# Columns by name: a later version's new one must not upset a prepared statement.
_COLLECTION = sql.SQL(
    "SELECT id, name, embedding_model, embedding_revision, dimension, description, language,"
    " create_time, document_count, chunk_count, epoch FROM retriever.collection"
)

_DOCUMENT_COLUMNS = sql.SQL(
    "d.id, d.title, d.content_length, d.content_hash, d.metadata, d.version,"
    " d.create_time, d.update_time, d.chunk_count"
)

_NAMES = 0x5155494E54455402
"""Seed of the advisory locks on names: "QUINTET" in ASCII, and 2."""


_ATTEMPTS = 4
"""Tries to make a collection that others make and delete at the same time."""


class PostgresStore:
    """Implements the engine's `Store`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def create_collection(
        self, new: NewCollection, once: RequestKey | None = None
    ) -> Collection:
        """Make the collection unless its name is taken; return the one of that name.

        Raises `ServiceError` CONFLICT when it is deleted again and again meanwhile.
        """
        for attempt in range(_ATTEMPTS):
            rows = await self._make_or_find(new, once and once.at(attempt))
            if rows:
                return _collection(rows[0])
            # It was there when we wrote, and gone when we read.
        raise ServiceError(Reason.CONFLICT, "the collection is being deleted; repeat the call")

    async def _make_or_find(self, new: NewCollection, once: RequestKey | None) -> list[DictRow]:
        return await run_once(
            self._database,
            Operation("INSERT", "collection"),
            once,
            # Those who make one of a name wait here before they draw its id, so that a
            # later collection of the name has a greater one.
            _hold_name(new.name),
            Statement(
                sql.SQL(
                    "WITH made AS ("
                    " INSERT INTO retriever.collection"
                    " (name, embedding_model, embedding_revision, dimension, description, language)"
                    " VALUES (%(name)s, %(model)s, %(revision)s, %(dimension)s, %(description)s,"
                    " %(language)s)"
                    " ON CONFLICT (name) DO NOTHING RETURNING id, name, epoch"
                    "), queued AS ("
                    " INSERT INTO retriever.outbox (name, collection_id, epoch)"
                    " SELECT name, id, epoch FROM made"
                    ") SELECT retriever.create_collection_tables("
                    "id, %(dimension)s::integer, %(m)s::integer, %(ef)s::integer, %(language)s)"
                    " FROM made"
                ),
                {
                    "name": new.name,
                    "model": new.embedding_model,
                    "revision": new.embedding_revision,
                    "dimension": new.dimension,
                    "description": new.description,
                    "language": new.language,
                    "m": self._settings.hnsw_m,
                    "ef": self._settings.hnsw_ef_construction,
                },
            ),
            Statement(
                sql.SQL(
                    "WITH found AS ({collection} WHERE name = %(name)s), {keep} SELECT * FROM found"
                ).format(collection=_COLLECTION, keep=keep("found")),
                {"name": new.name} | key_parameters(once),
            ),
        )

    async def find_collection(self, name: str) -> Collection | None:
        """Return the collection of that name."""
        rows = await self._database.run(
            Operation("SELECT", "collection"),
            Statement(_COLLECTION + sql.SQL(" WHERE name = %(name)s"), {"name": name}),
        )
        return _collection(rows[0]) if rows else None

    async def list_collections(self, after: str, limit: int) -> list[Collection]:
        """Return at most `limit` collections by name, from the first after `after`."""
        rows = await self._database.run(
            Operation("SELECT", "collection"),
            Statement(
                _COLLECTION + sql.SQL(" WHERE name > %(after)s ORDER BY name LIMIT %(limit)s"),
                {"after": after, "limit": limit},
            ),
        )
        return [_collection(row) for row in rows]

    async def delete_collection(
        self, name: str, once: RequestKey | None = None
    ) -> DeletedCollection | None:
        """Delete the collection; None if there is no such collection. Its tables are
        dropped, which takes no longer for many documents than for few."""
        rows = await run_once(
            self._database,
            Operation("DELETE", "collection"),
            once,
            Statement(
                sql.SQL(
                    "WITH gone AS ("
                    " DELETE FROM retriever.collection WHERE name = %(name)s"
                    " RETURNING id, name, document_count"
                    "), forgotten AS ("
                    " DELETE FROM retriever.change WHERE collection_id IN (SELECT id FROM gone)"
                    "), queued AS ("
                    " INSERT INTO retriever.outbox (name, collection_id, epoch)"
                    " SELECT name, id, %(last)s FROM gone"
                    "), {keep}"
                    " SELECT id, document_count, retriever.drop_collection_tables(id) FROM gone"
                ).format(keep=keep("gone")),
                {"name": name, "last": LAST} | key_parameters(once),
            ),
        )
        if not rows:
            return None
        return DeletedCollection(rows[0]["document_count"], Epoch(rows[0]["id"], LAST))

    async def switch_collections(
        self, name: str, other: str, expected: Epoch
    ) -> dict[str, Epoch] | None:
        """Exchange the names of two collections; return each name's new epoch, None if
        there is no such collection.

        Raises `ServiceError` CONFLICT if `name` is not at the epoch `expected`.
        """
        rows = await self._database.run(
            Operation("UPDATE", "collection", "UPDATE collection INSERT outbox"),
            # As those who make or delete one of a name; in one order, lest two wait for
            # each other.
            *(_hold_name(each) for each in sorted((name, other))),
            Statement(
                sql.SQL("SELECT retriever.carry_links(%(name)s, %(other)s)"),
                {"name": name, "other": other},
            ),
            Statement(
                sql.SQL(
                    "SELECT * FROM retriever.switch_collections("
                    "%(name)s, %(other)s, %(id)s, %(epoch)s)"
                ),
                {
                    "name": name,
                    "other": other,
                    "id": expected.collection,
                    "epoch": expected.number,
                },
            ),
        )
        return {row["name"]: Epoch(row["id"], row["epoch"]) for row in rows} or None

    async def write_document(
        self, key: CollectionKey, new: NewDocument, once: RequestKey | None = None
    ) -> WrittenDocument:
        """Write the document, replacing one of its id whole.

        Raises `CollectionGoneError` when the collection is not there any more.
        """
        document, chunks = new.source, new.source.chunks
        tables = Tables.of(key.id)
        identity = {"id": document.id, "collection": key.id, "chunk_count": len(chunks)}
        rows = await run_once(
            self._database,
            Operation(
                "INSERT",
                "document",
                "INSERT document DELETE chunk INSERT chunk DELETE name INSERT name DELETE link"
                " INSERT link UPDATE document UPDATE collection INSERT change INSERT outbox",
            ),
            once,
            share_of(key),
            Statement(
                # Its lock makes writers of one document wait for each other.
                sql.SQL(
                    "INSERT INTO {document} AS d"
                    " (id, title, content, content_length, content_hash, metadata)"
                    " VALUES (%(id)s, %(title)s, %(content)s, %(length)s, %(hash)s, %(metadata)s)"
                    " ON CONFLICT (id) DO UPDATE SET (title, content, content_length,"
                    " content_hash, metadata, version, update_time) = (excluded.title,"
                    " excluded.content, excluded.content_length, excluded.content_hash,"
                    " excluded.metadata, d.version + 1, clock_timestamp())"
                ).format(document=tables.document),
                {
                    "id": document.id,
                    "title": document.title,
                    "content": document.content,
                    "length": len(document.content),
                    "hash": document.content_hash,
                    "metadata": Jsonb(document.metadata),
                },
            ),
            Statement(
                sql.SQL(
                    "DELETE FROM {chunk} WHERE document_key ="
                    " (SELECT key FROM {document} WHERE id = %(id)s)"
                ).format(chunk=tables.chunk, document=tables.document),
                identity,
            ),
            Statement(
                sql.SQL(
                    "INSERT INTO {chunk} (document_key, chunk_index, start_char, end_char,"
                    " tokens, text, embedding)"
                    " SELECT d.key, c.ordinality - 1, c.start_char, c.end_char, c.tokens,"
                    " c.text, c.embedding FROM {document} AS d, unnest("
                    "%(starts)s::integer[], %(ends)s::integer[], %(tokens)s::integer[],"
                    " %(texts)s::text[], %(embeddings)b::vector[]) WITH ORDINALITY"
                    " AS c (start_char, end_char, tokens, text, embedding, ordinality)"
                    " WHERE d.id = %(id)s"
                ).format(chunk=tables.chunk, document=tables.document),
                {
                    "id": document.id,
                    "starts": [chunk.start for chunk in chunks],
                    "ends": [chunk.end for chunk in chunks],
                    "tokens": [chunk.tokens for chunk in chunks],
                    "texts": [chunk.text for chunk in chunks],
                    "embeddings": list(new.embeddings),
                },
            ),
            *link_statements(tables, document.id, new.links),
            Statement(
                # The collection's row comes last: it is locked for the commit only.
                sql.SQL(
                    "WITH written AS ("
                    " UPDATE {document} SET chunk_count = %(chunk_count)s WHERE id = %(id)s"
                    " RETURNING key, version, old.chunk_count AS chunks_before"
                    "), raised AS ("
                    " UPDATE retriever.collection AS c"
                    " SET document_count = c.document_count + (w.version = 1)::integer,"
                    " chunk_count = c.chunk_count + %(chunk_count)s - w.chunks_before,"
                    " uncounted_chunks = c.uncounted_chunks + %(chunk_count)s + w.chunks_before,"
                    " epoch = c.epoch + 1"
                    " FROM written AS w WHERE c.id = %(collection)s"
                    " RETURNING c.id, c.name, c.epoch, w.key AS document_key, w.version"
                    "), {news}, {keep} SELECT id, version, epoch FROM raised"
                ).format(document=tables.document, news=WRITE, keep=keep("raised")),
                identity | key_parameters(once),
            ),
        )
        (row,) = rows
        epoch = Epoch(row["id"], row["epoch"])
        found = new.links
        return WrittenDocument(
            document.id, row["version"], len(chunks), epoch, len(found.links), found.omitted
        )

    async def read_document(
        self, key: CollectionKey, document_id: str, *, include_content: bool
    ) -> tuple[Document, Epoch] | None:
        """Return the document of that id, and the epoch at which it was read."""
        content = sql.SQL("d.content" if include_content else "'' AS content")
        rows = await self._database.run(
            Operation("SELECT", "document", "SELECT document SELECT collection"),
            Statement(
                sql.SQL(
                    "SELECT {columns}, {content},"
                    " (SELECT epoch FROM retriever.collection WHERE id = %(collection)s)"
                    " FROM {document} AS d WHERE id = %(id)s"
                ).format(
                    columns=_DOCUMENT_COLUMNS,
                    content=content,
                    document=Tables.of(key.id).document,
                ),
                {"id": document_id, "collection": key.id},
            ),
        )
        if not rows:
            return None
        epoch = Epoch(key.id, rows[0].pop("epoch"))
        return Document(**rows[0]), epoch

    async def read_chunks(self, key: CollectionKey, document_id: str) -> DocumentChunks | None:
        """Return the chunks of the document of that id, by their place."""
        tables = Tables.of(key.id)
        rows = await self._database.run(
            Operation("SELECT", "chunk", "SELECT document SELECT chunk"),
            Statement(
                sql.SQL(
                    "SELECT d.version, c.text, c.start_char AS start, c.end_char AS end,"
                    " c.tokens, c.embedding AS vector FROM {document} AS d"
                    " JOIN {chunk} AS c ON c.document_key = d.key"
                    " WHERE d.id = %(id)s ORDER BY c.chunk_index"
                ).format(document=tables.document, chunk=tables.chunk),
                {"id": document_id},
            ),
        )
        if not rows:
            return None
        return DocumentChunks(
            version=rows[0]["version"],
            embedding_revision=key.embedding_revision,
            chunks=tuple(
                Chunk(
                    text=row["text"],
                    start=row["start"],
                    end=row["end"],
                    tokens=row["tokens"],
                    vector=bytes_of(row["vector"].to_numpy()),
                )
                for row in rows
            ),
        )

    async def list_documents(
        self, key: CollectionKey, after: str, limit: int, condition: Condition | None
    ) -> Sequence[Document]:
        """Return at most `limit` documents by id, without content, from the first
        after `after`."""
        where: sql.SQL | sql.Composed = sql.SQL("TRUE")
        parameters: dict[str, Any] = {"after": after, "limit": limit}
        if condition is not None:
            rendered = FilterSql(condition, sql.SQL("d.metadata"))
            where, parameters = rendered.sql, parameters | rendered.parameters
        rows = await self._database.run(
            Operation("SELECT", "document"),
            Statement(
                sql.SQL(
                    "SELECT {columns}, '' AS content FROM {document} AS d"
                    " WHERE id > %(after)s AND {where} ORDER BY id LIMIT %(limit)s"
                ).format(
                    columns=_DOCUMENT_COLUMNS,
                    document=Tables.of(key.id).document,
                    where=where,
                ),
                parameters,
            ),
        )
        return [Document(**row) for row in rows]

    async def delete_document(
        self, key: CollectionKey, document_id: str, once: RequestKey | None = None
    ) -> DeletedDocument | None:
        """Delete the document; None if there is none."""
        rows = await run_once(
            self._database,
            Operation(
                "DELETE",
                "document",
                "DELETE document DELETE chunk UPDATE collection INSERT change INSERT outbox",
            ),
            once,
            share_of(key),
            Statement(
                sql.SQL(
                    "WITH gone AS ("
                    " DELETE FROM {document} WHERE id = %(id)s RETURNING key, chunk_count"
                    "), raised AS ("
                    " UPDATE retriever.collection AS c"
                    " SET document_count = c.document_count - 1,"
                    " chunk_count = c.chunk_count - gone.chunk_count,"
                    " uncounted_chunks = c.uncounted_chunks + gone.chunk_count, epoch = c.epoch + 1"
                    " FROM gone WHERE c.id = %(collection)s RETURNING c.id, c.name, c.epoch,"
                    " gone.key AS document_key, gone.chunk_count AS chunks_before"
                    "), {news}, {keep} SELECT id, chunks_before, epoch FROM raised"
                ).format(document=Tables.of(key.id).document, news=WRITE, keep=keep("raised")),
                {"id": document_id, "collection": key.id} | key_parameters(once),
            ),
        )
        if not rows:
            return None
        return DeletedDocument(rows[0]["chunks_before"], Epoch(rows[0]["id"], rows[0]["epoch"]))

    async def invalidate(self, key: CollectionKey, document_id: str | None) -> Epoch | None:
        """Raise the epoch as if the document, or without an id every document, had
        changed; None if there is no such document."""
        touched = sql.SQL("(SELECT NULL::bigint AS key)")
        if document_id is not None:
            touched = sql.SQL("(SELECT key FROM {document} WHERE id = %(id)s)")
        rows = await self._database.run(
            Operation("UPDATE", "collection", "UPDATE collection INSERT change INSERT outbox"),
            share_of(key),
            Statement(
                sql.SQL(
                    "WITH raised AS ("
                    " UPDATE retriever.collection AS c SET epoch = c.epoch + 1"
                    " FROM {touched} AS t WHERE c.id = %(collection)s"
                    " RETURNING c.id, c.name, c.epoch, t.key AS document_key"
                    "), {news} SELECT epoch FROM raised"
                ).format(
                    touched=touched.format(document=Tables.of(key.id).document), news=INVALIDATION
                ),
                {"id": document_id, "collection": key.id},
            ),
        )
        return Epoch(key.id, rows[0]["epoch"]) if rows else None


def _collection_named(name: str) -> Statement:
    return Statement(_COLLECTION + sql.SQL(" WHERE name = %(name)s"), {"name": name})


def _hold_name(name: str) -> Statement:
    return Statement(
        sql.SQL("SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, %(seed)s))"),
        {"name": name, "seed": _NAMES},
    )


def _collection(row: DictRow) -> Collection:
    return Collection(
        key=CollectionKey(row["id"], row["embedding_revision"], row["dimension"], row["language"]),
        epoch=Epoch(row["id"], row["epoch"]),
        name=row["name"],
        embedding_model=row["embedding_model"],
        description=row["description"],
        # Text where a repeated request is told what the first one was.
        create_time=datetime.fromisoformat(str(row["create_time"])),
        document_count=row["document_count"],
        chunk_count=row["chunk_count"],
    )
