"""Takes ratings of answers that have a record, and tells how answers were rated."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from prometheus_client import Counter

from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet_gateway.feedback.models import Comment, Made, Rating, Tally
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity

_RATINGS = Counter(
    "quintet_gateway_ratings_total",
    "Ratings of answers, repeated ones included, by the answer's prompt template and model and by"
    " score.",
    ("template", "model", "score"),
)


class Records(Protocol):
    """Where answers' records are; see `records.explaining.Explainer`."""

    async def record(self, asker: Identity, answer_id: str) -> explain_pb.AnswerRecord: ...


class Store(Protocol):
    """Where ratings are kept; see `store.PostgresRatings`."""

    async def put(self, rating: Rating) -> bool: ...
    async def tallies(self, collection: str, days: int) -> Sequence[Tally]: ...
    async def comments(self, collection: str, days: int, most: int) -> Sequence[Comment]: ...


class Ratings:
    """Keeps ratings; with their comments only if `comments`."""

    def __init__(self, records: Records, store: Store, *, comments: bool) -> None:
        self.keeps_comments = comments
        self._records = records
        self._store = store

    async def rate(
        self, asker: Identity, answer_id: str, *, score: int, rater: str, comment: str
    ) -> bool:
        """Keep a rating; return whether it replaced one. An empty `rater` is the asker's key.

        Raises `ServiceError` ANSWER_NOT_FOUND, and as the database does.
        """
        record = await self._records.record(asker, answer_id)
        if record.failure != error_reason_pb2.ERROR_REASON_UNSPECIFIED:
            raise ServiceError(
                Reason.ANSWER_NOT_FOUND,
                "there is no record of that answer",
                metadata={"answer_id": answer_id},
            )
        made = Made(
            record.request.collection,
            record.model,
            record.model_revision,
            record.template,
            record.template_revision,
        )
        who = f"{asker.key}\0{rater}".encode()
        replaced = await self._store.put(
            Rating(
                UUID(answer_id),
                hashlib.blake2b(who, digest_size=16).digest(),
                score,
                comment if self.keeps_comments else "",
                made,
            )
        )
        _RATINGS.labels(made.template, made.model, str(score)).inc()
        return replaced

    async def tallies(self, collection: str, days: int) -> Sequence[Tally]:
        """As `PostgresRatings.tallies`."""
        return await self._store.tallies(collection, days)

    async def comments(self, collection: str, days: int, most: int) -> Sequence[Comment]:
        """As `PostgresRatings.comments`."""
        return await self._store.comments(collection, days, most) if most else ()
