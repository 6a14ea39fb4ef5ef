"""Ratings of answers in a real PostgreSQL: one a rater, each tenant's own, and bounded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from support.postgres import service_url

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway.database import Database, open_database
from quintet_gateway.feedback.models import Made, Rating
from quintet_gateway.feedback.opening import open_ratings
from quintet_gateway.feedback.rating import Ratings
from quintet_gateway.feedback.settings import FeedbackSettings
from quintet_gateway.feedback.store import PostgresRatings
from quintet_gateway.records.entry import Entry, new_id
from quintet_gateway.records.opening import Records, open_records
from quintet_gateway.settings import RecordSettings, Settings
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as
from quintet_servicekit.postgres.database import Operation, Statement

ACME, OTHER = Identity("acme", "k1"), Identity("other", "k1")
MADE = Made("notes", "m", "mr", "answer", "tr")


def rating(score: int = 5, made: Made = MADE, comment: str = "") -> Rating:
    return Rating(new_id(), os.urandom(16), score, comment, made)


def settings_for(url: str) -> Settings:
    return Settings(
        database_url=SecretStr(service_url(url)),
        owner_database_url=SecretStr(url),
        records=RecordSettings(interval_seconds=0.05),
    )


@asynccontextmanager
async def database_at(url: str) -> AsyncIterator[Database]:
    async with open_database(settings_for(url)) as database:
        assert database is not None
        await database.migrated.wait()
        yield database


@asynccontextmanager
async def rating_answers(url: str) -> AsyncIterator[tuple[Records, Ratings]]:
    async with (
        database_at(url) as database,
        open_records(settings_for(url), database) as records,
        open_ratings(FeedbackSettings(comments=True), database, records) as ratings,
    ):
        assert records is not None
        assert ratings is not None
        yield records, ratings


def answered(records: Records, template: str = "answer", tenant: str = "acme") -> str:
    """Note an answer, and return its id."""
    response = pb.AskResponse(
        model="m", model_revision="mr", template=template, template_revision="tr"
    )
    request = pb.AskRequest(collection="notes", question="q")
    noted = Entry(new_id(), tenant, "k1", False, request, response, "e", "er")
    records.writer.put(noted)
    return str(noted.id)


async def test_the_last_rating_of_a_rater_counts_and_others_beside_it(database_url: str) -> None:
    async with rating_answers(database_url) as (records, ratings):
        answer_id = answered(records)
        with acting_as(ACME):
            replaced = [
                await ratings.rate(ACME, answer_id, score=score, rater=rater, comment=comment)
                for score, rater, comment in ((1, "ann", "No."), (2, "bob", ""), (5, "ann", "Yes."))
            ]
            (tally,) = await ratings.tallies("", 30)
            comments = await ratings.comments("notes", 30, 10)
            assert await ratings.tallies("mails", 30) == []
    assert replaced == [False, False, True]
    assert tally.counts == (0, 1, 0, 0, 1)
    assert (tally.made.template, tally.made.model) == ("answer", "m")
    assert [(str(it.answer_id), it.score, it.text) for it in comments] == [(answer_id, 5, "Yes.")]


async def test_raters_who_rate_at_once_leave_one_rating(database_url: str) -> None:
    async with rating_answers(database_url) as (records, ratings):
        answer_id = answered(records)
        with acting_as(ACME):
            told = await asyncio.gather(
                *(
                    ratings.rate(ACME, answer_id, score=1 + i % 5, rater="", comment="")
                    for i in range(20)
                )
            )
            (tally,) = await ratings.tallies("", 30)
    assert told.count(False) == 1
    assert tally.number == 1


async def test_templates_are_told_apart_those_with_most_ratings_first(database_url: str) -> None:
    async with rating_answers(database_url) as (records, ratings):
        with acting_as(ACME):
            for template, scores in (("answer", (1, 4)), ("answer-full", (5, 5, 4))):
                for score in scores:
                    answer_id = answered(records, template)
                    await ratings.rate(ACME, answer_id, score=score, rater="", comment="")
            tallies = await ratings.tallies("", 30)
    assert [(it.made.template, it.number, it.liked) for it in tallies] == [
        ("answer-full", 3, 1.0),
        ("answer", 2, 0.5),
    ]


async def test_another_tenants_answer_cannot_be_rated_and_looks_like_one_that_never_was(
    database_url: str,
) -> None:
    async with rating_answers(database_url) as (records, ratings):
        answer_id = answered(records)
        told = set()
        with acting_as(OTHER):
            for identifier in (answer_id, str(new_id())):
                with pytest.raises(ServiceError) as caught:
                    await ratings.rate(OTHER, identifier, score=1, rater="", comment="")
                told.add((caught.value.reason, caught.value.message))
            assert await ratings.tallies("", 30) == []
    assert told == {(Reason.ANSWER_NOT_FOUND, "there is no record of that answer")}


async def test_sql_of_one_tenant_sees_and_changes_no_rating_of_another(database_url: str) -> None:
    async with database_at(database_url) as database:
        with acting_as(ACME):
            await PostgresRatings(database).put(rating(4))
        for_all = "tenant = 'acme' OR true"
        with acting_as(OTHER):
            for statement in (
                f"SELECT score FROM gateway.rating WHERE {for_all}",
                f"UPDATE gateway.rating SET score = 1 WHERE {for_all} RETURNING score",
                f"DELETE FROM gateway.rating WHERE {for_all} RETURNING score",
            ):
                text = sql.SQL(statement)
                rows = await database.run(Operation("SELECT", "rating"), Statement(text, {}))
                assert rows == []
            forged = sql.SQL(
                "INSERT INTO gateway.rating (tenant, answer_id, rater, score, collection, model,"
                " model_revision, template, template_revision) VALUES ('acme', %(id)s, %(rater)s,"
                " 1, '', '', '', '', '')"
            )
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await database.run(
                    Operation("INSERT", "rating"),
                    Statement(forged, {"id": new_id(), "rater": os.urandom(16)}),
                )
        with acting_as(ACME):
            (tally,) = await PostgresRatings(database).tallies("", 30)
    assert tally.counts == (0, 0, 0, 1, 0)


def kept(url: str) -> list[tuple[UUID, str]]:
    with psycopg.connect(url) as connection:
        query = "SELECT answer_id, tenant FROM gateway.rating ORDER BY rated_at"
        return connection.execute(query).fetchall()


async def test_ratings_go_when_they_are_old_or_too_many_the_oldest_first(database_url: str) -> None:
    async with database_at(database_url) as database:
        store = PostgresRatings(database)
        acmes = [rating() for _ in range(6)]
        with acting_as(ACME):
            for it in acmes:
                await store.put(it)
        with acting_as(OTHER):
            others = rating()
            await store.put(others)
        with psycopg.connect(database_url, autocommit=True) as connection:
            for days, it in ((400, acmes[0]), (20, acmes[1]), (10, acmes[2])):
                connection.execute(
                    "UPDATE gateway.rating SET rated_at = now() - make_interval(days => %s)"
                    " WHERE answer_id = %s",
                    (days, it.answer_id),
                )
        # So few at once that it takes several statements.
        while await store.trim(365, 4, 1):
            pass
        assert {it for it, _ in kept(database_url)} == {
            *(it.answer_id for it in acmes[2:]),
            others.answer_id,
        }
        with acting_as(ACME):
            (recent,) = await store.tallies("", 5)
    assert recent.number == 3


async def test_a_template_of_the_same_name_and_another_revision_is_another_one(
    database_url: str,
) -> None:
    async with database_at(database_url) as database:
        store = PostgresRatings(database)
        with acting_as(ACME):
            await store.put(rating(1))
            await store.put(rating(5, replace(MADE, template_revision="later")))
            tallies = await store.tallies("", 30)
    assert [it.made.template_revision for it in tallies] == ["later", "tr"]
