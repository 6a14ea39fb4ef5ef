"""The table of ratings; see `migrations/0006_ratings.sql`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from quintet_gateway.database import Database
from quintet_gateway.feedback.models import Comment, Made, Rating, Tally
from quintet_servicekit.postgres.database import Operation, Statement

MOST_TALLIES = 1_000

_UPSERT = Operation("INSERT", "rating")
_SELECT = Operation("SELECT", "rating")
_TRIM = Operation("DELETE", "rating", background=True)


class PostgresRatings:
    """Ratings in PostgreSQL, of the tenant for which a call is. All methods raise
    `ServiceError` as `Database.run` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, rating: Rating) -> bool:
        """Keep a rating in place of an earlier one of the same rater; return whether there
        was one."""
        made = rating.made
        (row,) = await self._database.run(
            _UPSERT,
            _statement(
                # A row that was not inserted now has an xmax.
                "INSERT INTO gateway.rating (answer_id, rater, score, comment, collection, model,"
                " model_revision, template, template_revision)"
                " VALUES (%(answer_id)s, %(rater)s, %(score)s, %(comment)s, %(collection)s,"
                " %(model)s, %(model_revision)s, %(template)s, %(template_revision)s)"
                " ON CONFLICT (tenant, answer_id, rater) DO UPDATE SET score = excluded.score,"
                " comment = excluded.comment, rated_at = excluded.rated_at"
                " RETURNING xmax <> 0 AS replaced",
                answer_id=rating.answer_id,
                rater=rating.rater,
                score=rating.score,
                comment=rating.comment,
                collection=made.collection,
                model=made.model,
                model_revision=made.model_revision,
                template=made.template,
                template_revision=made.template_revision,
            ),
        )
        return bool(row["replaced"])

    async def tallies(self, collection: str, days: int) -> Sequence[Tally]:
        """Return how answers were rated in the last days, by how they were made, those with
        most ratings first; of one collection, or of all for an empty name."""
        rows = await self._database.run(
            _SELECT,
            _statement(
                "SELECT model, model_revision, template, template_revision,"
                " count(*) FILTER (WHERE score = 1) AS n1, count(*) FILTER (WHERE score = 2) AS n2,"
                " count(*) FILTER (WHERE score = 3) AS n3, count(*) FILTER (WHERE score = 4) AS n4,"
                " count(*) FILTER (WHERE score = 5) AS n5"
                " FROM gateway.rating WHERE tenant = gateway.tenant()"
                " AND rated_at > now() - make_interval(days => %(days)s)"
                " AND (%(collection)s = '' OR collection = %(collection)s)"
                " GROUP BY 1, 2, 3, 4 ORDER BY count(*) DESC, 3, 1, 4, 2 LIMIT %(most)s",
                collection=collection,
                days=days,
                most=MOST_TALLIES,
            ),
        )
        return [
            Tally(
                Made(
                    "", it["model"], it["model_revision"], it["template"], it["template_revision"]
                ),
                (it["n1"], it["n2"], it["n3"], it["n4"], it["n5"]),
            )
            for it in rows
        ]

    async def comments(self, collection: str, days: int, most: int) -> Sequence[Comment]:
        """Return the newest comments of the last days, of one collection or of all."""
        rows = await self._database.run(
            _SELECT,
            _statement(
                "SELECT answer_id, score, comment, rated_at, template, model"
                " FROM gateway.rating WHERE tenant = gateway.tenant() AND comment <> ''"
                " AND rated_at > now() - make_interval(days => %(days)s)"
                " AND (%(collection)s = '' OR collection = %(collection)s)"
                " ORDER BY rated_at DESC, answer_id LIMIT %(most)s",
                collection=collection,
                days=days,
                most=most,
            ),
        )
        return [
            Comment(
                it["answer_id"],
                it["score"],
                it["comment"],
                it["rated_at"],
                it["template"],
                it["model"],
            )
            for it in rows
        ]

    async def trim(self, days: int, most: int, at_once: int) -> int:
        """Drop ratings older than that many days, and the oldest of tenants that have more
        than `most`, `at_once` of each; return how many. One replica does it at a time."""
        (row,) = await self._database.run(
            _TRIM,
            _statement(
                "SELECT gateway.trim_ratings(%(days)s, %(most)s, %(at_once)s) AS dropped",
                days=days,
                most=most,
                at_once=at_once,
            ),
        )
        return int(row["dropped"])


def _statement(text: Any, **parameters: Any) -> Statement:
    return Statement(sql.SQL(text), parameters)
