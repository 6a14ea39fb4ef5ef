"""Names of a collection's own tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables that `retriever.create_collection_tables` and `create_link_tables` made, or
    what they are read by."""

    document: sql.Identifier
    chunk: sql.Identifier
    word: sql.Identifier
    name: sql.Identifier
    link: sql.Identifier

    @classmethod
    def of(cls, collection_id: int) -> Tables:
        """Return the tables of the collection of that id."""
        return cls(
            document=sql.Identifier("retriever", f"document_{collection_id}"),
            chunk=sql.Identifier("retriever", f"chunk_{collection_id}"),
            word=sql.Identifier("retriever", f"word_{collection_id}"),
            name=sql.Identifier("retriever", f"name_{collection_id}"),
            link=sql.Identifier("retriever", f"link_{collection_id}"),
        )

    @classmethod
    def to_read(cls, collection_id: int) -> Tables:
        """Return the same to read from: documents and chunks by the views whose indexes can
        serve every operator (migration 0009)."""
        return replace(
            cls.of(collection_id),
            document=sql.Identifier("retriever", f"documents_{collection_id}"),
            chunk=sql.Identifier("retriever", f"chunks_{collection_id}"),
        )
