"""Ratings of answers: what is refused, what is kept, and what is told of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.errors.v1 import error_reason_pb2
from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet.gateway.v1 import feedback_service_pb2 as pb
from quintet.gateway.v1 import gateway_service_pb2 as gateway_pb
from quintet_gateway.feedback.models import Comment, Made, Rating, Tally, wilson
from quintet_gateway.feedback.rating import Ratings
from quintet_gateway.feedback.servicer import FeedbackServicer
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity, acting_as

ID = "01a20570-7c89-72f4-9a9b-3a84b7f328bd"
FAILED = "01a20570-7c89-72f4-9a9b-3a84b7f328be"
MADE = Made("notes", "m", "mr", "answer", "tr")
CONTEXT: Any = None


class Shelf:
    """Records of one answer and of a failure; ratings as they were put."""

    def __init__(self) -> None:
        self.put_: list[Rating] = []

    async def record(self, asker: Identity, answer_id: str) -> explain_pb.AnswerRecord:
        record = explain_pb.AnswerRecord(
            request=gateway_pb.AskRequest(collection="notes"),
            model="m",
            model_revision="mr",
            template="answer",
            template_revision="tr",
        )
        if answer_id == FAILED:
            record.failure = error_reason_pb2.ERROR_REASON_NO_PASSAGES
        return record

    async def put(self, rating: Rating) -> bool:
        self.put_.append(rating)
        return len(self.put_) > 1

    async def tallies(self, collection: str, days: int) -> Sequence[Tally]:
        return [Tally(MADE, (1, 0, 0, 1, 2))]

    async def comments(self, collection: str, days: int, most: int) -> Sequence[Comment]:
        raise AssertionError("nobody asked for comments")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def servicer(shelf: Shelf, *, comments: bool = False) -> FeedbackServicer:
    return FeedbackServicer(Ratings(shelf, shelf, comments=comments))


async def test_a_rating_is_kept_with_how_its_answer_was_made(shelf: Shelf) -> None:
    request = pb.RateAnswerRequest(answer_id=ID, score=4, comment="Fine.")
    response = await servicer(shelf).RateAnswer(request, CONTEXT)
    assert not response.replaced
    assert not response.comment_stored
    (kept,) = shelf.put_
    assert (str(kept.answer_id), kept.score, kept.comment, kept.made) == (ID, 4, "", MADE)


async def test_thumbs_are_the_ends_of_the_scale(shelf: Shelf) -> None:
    for thumbs_up in (True, False):
        request = pb.RateAnswerRequest(answer_id=ID, thumbs_up=thumbs_up)
        await servicer(shelf).RateAnswer(request, CONTEXT)
    assert [it.score for it in shelf.put_] == [5, 1]


async def test_comments_are_kept_only_where_they_are_wanted(shelf: Shelf) -> None:
    request = pb.RateAnswerRequest(answer_id=ID, score=4, comment="Fine.")
    response = await servicer(shelf, comments=True).RateAnswer(request, CONTEXT)
    assert response.comment_stored
    assert shelf.put_[0].comment == "Fine."


async def test_raters_are_told_apart_by_key_and_name_and_no_name_is_kept(shelf: Shelf) -> None:
    for key, rater in (("k1", ""), ("k1", "ann"), ("k2", "ann"), ("k1", "ann")):
        with acting_as(Identity("acme", key)):
            request = pb.RateAnswerRequest(answer_id=ID, score=4, rater=rater)
            await servicer(shelf).RateAnswer(request, CONTEXT)
    raters = [it.rater for it in shelf.put_]
    assert raters[1] == raters[3]
    assert len(set(raters)) == 3
    assert not any(b"ann" in it for it in raters)


async def test_a_call_without_an_answer_is_not_rated(shelf: Shelf) -> None:
    with pytest.raises(ServiceError) as caught:
        await servicer(shelf).RateAnswer(pb.RateAnswerRequest(answer_id=FAILED, score=1), CONTEXT)
    assert caught.value.reason is Reason.ANSWER_NOT_FOUND
    assert not shelf.put_


@pytest.mark.parametrize(
    "request_",
    [
        pb.RateAnswerRequest(score=3),
        pb.RateAnswerRequest(answer_id="no id", score=3),
        pb.RateAnswerRequest(answer_id=ID),
        pb.RateAnswerRequest(answer_id=ID, score=6),
        pb.RateAnswerRequest(answer_id=ID, score=3, comment="a\0b"),
    ],
)
async def test_what_is_no_rating_is_refused(shelf: Shelf, request_: pb.RateAnswerRequest) -> None:
    with pytest.raises(ServiceError) as caught:
        await servicer(shelf).RateAnswer(request_, CONTEXT)
    assert caught.value.reason is Reason.INVALID_FIELD
    assert not shelf.put_


@pytest.mark.parametrize("field", ["rater", "comment"])
async def test_what_is_too_long_is_refused(shelf: Shelf, field: str) -> None:
    request = pb.RateAnswerRequest(answer_id=ID, score=3)
    setattr(request, field, "x" * 2_001)
    with pytest.raises(ServiceError) as caught:
        await servicer(shelf).RateAnswer(request, CONTEXT)
    assert caught.value.reason is Reason.INPUT_TOO_LONG


async def test_without_records_nothing_is_rated_or_told() -> None:
    nobody = FeedbackServicer(None)
    for call in (
        nobody.RateAnswer(pb.RateAnswerRequest(answer_id=ID, score=3), CONTEXT),
        nobody.GetFeedback(pb.GetFeedbackRequest(), CONTEXT),
    ):
        with pytest.raises(ServiceError) as caught:
            await call
        assert caught.value.reason is Reason.NO_DATABASE


async def test_a_report_has_counts_mean_and_interval(shelf: Shelf) -> None:
    response = await servicer(shelf).GetFeedback(pb.GetFeedbackRequest(), CONTEXT)
    (told,) = response.templates
    assert (told.template, told.template_revision, told.model) == ("answer", "tr", "m")
    assert list(told.counts) == [1, 0, 0, 1, 2]
    assert (told.mean, told.liked) == (3.75, 0.75)
    assert (told.liked_low, told.liked_high) == pytest.approx((0.3006, 0.9544), abs=1e-4)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_lies_around_the_share(counts: tuple[int, int]) -> None:
    successes, number = counts
    low, high = wilson(successes, number)
    assert 0 <= low <= successes / number + 1e-12
    assert successes / number - 1e-12 <= high <= 1
    assert low < high
