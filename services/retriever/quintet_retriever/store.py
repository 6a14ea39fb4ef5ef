"""Keeps collections and documents in PostgreSQL, and searches them.

Every method is one round trip (`Database.run`), which is one transaction. A writer
first takes a share of the collection's row: `delete_collection` waits for writers
that have it and is waited for by those that do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from quintet_retriever.database import Database, Operation, Statement
from quintet_retriever.filter_sql import FilterSql
from quintet_retriever.filters import Condition
from quintet_retriever.models import (
    Collection,
    CollectionKey,
    Document,
    Hit,
    NewCollection,
    NewDocument,
    SearchQuery,
    WrittenDocument,
)
from quintet_retriever.search_sql import index_settings, search_statement
from quintet_retriever.settings import Settings
from quintet_retriever.tables import Tables

# Columns by name: a later version's new one must not upset a prepared statement.
_COLLECTION = sql.SQL(
    "SELECT id, name, embedding_model, embedding_revision, dimension, description,"
    " create_time, document_count, chunk_count FROM retriever.collection"
)

_DOCUMENT_COLUMNS = sql.SQL(
    "d.id, d.title, d.content_length, d.content_hash, d.metadata, d.version,"
    " d.create_time, d.update_time, d.chunk_count"
)


class PostgresStore:
    """Implements the engine's `Store`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    async def create_collection(self, new: NewCollection) -> Collection:
        """Make the collection unless its name is taken; return the one of that name."""
        rows = await self._database.run(
            Operation("INSERT", "collection"),
            Statement(
                sql.SQL(
                    "WITH made AS ("
                    " INSERT INTO retriever.collection"
                    " (name, embedding_model, embedding_revision, dimension, description)"
                    " VALUES (%(name)s, %(model)s, %(revision)s, %(dimension)s, %(description)s)"
                    " ON CONFLICT (name) DO NOTHING RETURNING id"
                    ") SELECT retriever.create_collection_tables("
                    "id, %(dimension)s::integer, %(m)s::integer, %(ef)s::integer) FROM made"
                ),
                {
                    "name": new.name,
                    "model": new.embedding_model,
                    "revision": new.embedding_revision,
                    "dimension": new.dimension,
                    "description": new.description,
                    "m": self._settings.hnsw_m,
                    "ef": self._settings.hnsw_ef_construction,
                },
            ),
            _collection_named(new.name),
        )
        return _collection(rows[0])

    async def find_collection(self, name: str) -> Collection | None:
        """Return the collection of that name."""
        rows = await self._database.run(Operation("SELECT", "collection"), _collection_named(name))
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

    async def delete_collection(self, name: str) -> int | None:
        """Delete the collection and return its number of documents; None if there is
        no such collection. Its tables are dropped, which takes no longer for many
        documents than for few."""
        rows = await self._database.run(
            Operation("DELETE", "collection"),
            Statement(
                sql.SQL(
                    "WITH gone AS ("
                    " DELETE FROM retriever.collection WHERE name = %(name)s"
                    " RETURNING id, document_count"
                    ") SELECT document_count, retriever.drop_collection_tables(id) FROM gone"
                ),
                {"name": name},
            ),
        )
        return int(rows[0]["document_count"]) if rows else None

    async def write_document(self, key: CollectionKey, new: NewDocument) -> WrittenDocument:
        """Write the document, replacing one of its id whole.

        Raises `CollectionGoneError` when the collection is not there any more.
        """
        document, chunks = new.source, new.source.chunks
        tables = Tables.of(key.id)
        identity = {"id": document.id, "collection": key.id, "chunk_count": len(chunks)}
        rows = await self._database.run(
            Operation(
                "INSERT",
                "document",
                "INSERT document DELETE chunk INSERT chunk UPDATE document UPDATE collection",
            ),
            _share_of(key),
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
            Statement(
                # The collection's row comes last: it is locked for the commit only.
                sql.SQL(
                    "WITH written AS ("
                    " UPDATE {document} SET chunk_count = %(chunk_count)s WHERE id = %(id)s"
                    " RETURNING version, old.chunk_count AS chunks_before"
                    "), counted AS ("
                    " UPDATE retriever.collection AS c"
                    " SET document_count = c.document_count + (w.version = 1)::integer,"
                    " chunk_count = c.chunk_count + %(chunk_count)s - w.chunks_before"
                    " FROM written AS w WHERE c.id = %(collection)s"
                    ") SELECT version FROM written"
                ).format(document=tables.document),
                identity,
            ),
        )
        return WrittenDocument(document.id, rows[0]["version"], len(chunks))

    async def read_document(
        self, key: CollectionKey, document_id: str, *, include_content: bool
    ) -> Document | None:
        """Return the document of that id."""
        content = sql.SQL("d.content" if include_content else "'' AS content")
        rows = await self._database.run(
            Operation("SELECT", "document"),
            Statement(
                sql.SQL(
                    "SELECT {columns}, {content} FROM {document} AS d WHERE id = %(id)s"
                ).format(
                    columns=_DOCUMENT_COLUMNS,
                    content=content,
                    document=Tables.of(key.id).document,
                ),
                {"id": document_id},
            ),
        )
        return Document(**rows[0]) if rows else None

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

    async def delete_document(self, key: CollectionKey, document_id: str) -> int | None:
        """Delete the document and return its number of chunks; None if there is none."""
        rows = await self._database.run(
            Operation("DELETE", "document", "DELETE document DELETE chunk UPDATE collection"),
            _share_of(key),
            Statement(
                sql.SQL(
                    "WITH gone AS ("
                    " DELETE FROM {document} WHERE id = %(id)s RETURNING chunk_count"
                    "), counted AS ("
                    " UPDATE retriever.collection AS c"
                    " SET document_count = c.document_count - 1,"
                    " chunk_count = c.chunk_count - gone.chunk_count"
                    " FROM gone WHERE c.id = %(collection)s"
                    ") SELECT chunk_count FROM gone"
                ).format(document=Tables.of(key.id).document),
                {"id": document_id, "collection": key.id},
            ),
        )
        return int(rows[0]["chunk_count"]) if rows else None

    async def search(self, key: CollectionKey, query: SearchQuery) -> list[Hit]:
        """Return the hits of the query, best first."""
        rows = await self._database.run(
            Operation("SELECT", "chunk", "SELECT chunk SELECT document"),
            index_settings(self._settings),
            search_statement(key, query, self._settings),
        )
        return [Hit(start=row.pop("start_char"), end=row.pop("end_char"), **row) for row in rows]


def _collection_named(name: str) -> Statement:
    return Statement(_COLLECTION + sql.SQL(" WHERE name = %(name)s"), {"name": name})


def _share_of(key: CollectionKey) -> Statement:
    return Statement(
        sql.SQL("SELECT FROM retriever.collection WHERE id = %(id)s FOR KEY SHARE"),
        {"id": key.id},
    )


def _collection(row: DictRow) -> Collection:
    return Collection(
        key=CollectionKey(row["id"], row["embedding_revision"], row["dimension"]),
        name=row["name"],
        embedding_model=row["embedding_model"],
        description=row["description"],
        create_time=row["create_time"],
        document_count=row["document_count"],
        chunk_count=row["chunk_count"],
    )
