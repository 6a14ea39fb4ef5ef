"""Keeps collections in PostgreSQL: makes, lists, switches and deletes them, with their tables."""

from __future__ import annotations

from datetime import datetime

from psycopg import sql
from psycopg.rows import DictRow

from quintet_retriever.database import Database
from quintet_retriever.epoch_sql import INVALIDATION, share_of
from quintet_retriever.models import (
    Collection,
    CollectionKey,
    DeletedCollection,
    NewCollection,
    RequestKey,
)
from quintet_retriever.once import keep, key_parameters, run_once
from quintet_retriever.settings import Settings
from quintet_retriever.tables import Tables
from quintet_servicekit.consistency import LAST, Epoch
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.postgres.database import Operation, Statement

# Columns by name: a later version's new one must not upset a prepared statement.
_COLLECTION = sql.SQL(
    "SELECT id, name, embedding_model, embedding_revision, dimension, description, language,"
    " create_time, document_count, chunk_count, epoch FROM retriever.collection"
)

_NAMES = 0x5155494E54455402
"""Seed of the advisory locks on names: "QUINTET" in ASCII, and 2."""


_ATTEMPTS = 4
"""Tries to make a collection that others make and delete at the same time."""


class CollectionStore:
    """Implements what the engine's `Store` does to collections; see `store`."""

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
                    " ON CONFLICT (tenant, name) DO NOTHING RETURNING id, name, epoch"
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
        """Delete the collection; None if there is no such collection. Its tables go with its
        row, which takes no longer for many documents than for few."""
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
                    " SELECT id, document_count FROM gone"
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
            # Waits for writers of either, who hold a share of its row: what is carried over
            # must not go meanwhile.
            Statement(
                sql.SQL(
                    "SELECT FROM retriever.collection WHERE name IN (%(name)s, %(other)s)"
                    " ORDER BY name FOR UPDATE"
                ),
                {"name": name, "other": other},
            ),
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


def _hold_name(name: str) -> Statement:
    return Statement(
        sql.SQL(
            "SELECT pg_advisory_xact_lock("
            "hashtextextended(retriever.tenant() || '/' || %(name)s, %(seed)s))"
        ),
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
