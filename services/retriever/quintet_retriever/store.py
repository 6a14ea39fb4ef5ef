"""Keeps collections and documents in PostgreSQL, and raises the epochs of collections.

Every method is one round trip (`Database.run`), which is one transaction. A writer
first takes a share of the collection's row: `delete_collection` waits for writers
that have it and is waited for by those that do not. Its last statement raises the
collection's epoch: the row is then locked until the commit, so that epochs are raised
in the order of the commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from quintet_retriever.collection_store import CollectionStore
from quintet_retriever.epoch_sql import WRITE, share_of
from quintet_retriever.filter_sql import FilterSql
from quintet_retriever.filters import Condition
from quintet_retriever.links.writing import link_statements
from quintet_retriever.models import (
    Chunk,
    CollectionKey,
    DeletedDocument,
    Document,
    DocumentChunks,
    NewDocument,
    RequestKey,
    WrittenDocument,
)
from quintet_retriever.once import keep, key_parameters, run_once
from quintet_retriever.tables import Tables
from quintet_retriever.vectors import bytes_of
from quintet_servicekit.consistency import Epoch
from quintet_servicekit.postgres.database import Operation, Statement

# Columns by name, as in `collection_store`.
_DOCUMENT_COLUMNS = sql.SQL(
    "d.id, d.title, d.content_length, d.content_hash, d.metadata, d.version,"
    " d.create_time, d.update_time, d.chunk_count"
)


class PostgresStore(CollectionStore):
    """Implements the engine's `Store`."""

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
                    " (id, title, content, content_length, content_hash, metadata,"
                    " create_time, update_time)"
                    " VALUES (%(id)s, %(title)s, %(content)s, %(length)s, %(hash)s, %(metadata)s,"
                    # The same in both, as the clock need not be.
                    " statement_timestamp(), statement_timestamp())"
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
                    document=Tables.to_read(key.id).document,
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
        tables = Tables.to_read(key.id)
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
                    document=Tables.to_read(key.id).document,
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
