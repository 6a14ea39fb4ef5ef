"""The gateway's RPCs of ratings: validate, keep or tell, build the response."""

from __future__ import annotations

from typing import Any

import grpc

from quintet.gateway.v1 import feedback_service_pb2 as pb
from quintet.gateway.v1 import feedback_service_pb2_grpc as pb_grpc
from quintet_gateway.feedback.models import Comment, Tally
from quintet_gateway.feedback.rating import Ratings
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import current
from quintet_servicekit.validation import Checks

SERVICE = pb.DESCRIPTOR.services_by_name["FeedbackService"].full_name
MAX_NAME_CHARS = 200
MAX_COMMENT_CHARS = 2_000
MAX_COMMENTS = 200
MAX_DAYS = 3_650
DEFAULT_DAYS = 30
_THUMBS = {True: 5, False: 1}

Context = grpc.aio.ServicerContext[Any, Any]


class FeedbackServicer(pb_grpc.FeedbackServiceServicer):
    """See the contract. `ratings` is None where no records are kept."""

    def __init__(self, ratings: Ratings | None) -> None:
        self._ratings = ratings

    async def RateAnswer(
        self, request: pb.RateAnswerRequest, context: Context
    ) -> pb.RateAnswerResponse:
        by_thumb = request.WhichOneof("rating") == "thumbs_up"
        score = _THUMBS[request.thumbs_up] if by_thumb else request.score
        checks = Checks()
        checks.request_id("answer_id", request.answer_id)
        if not request.answer_id:
            checks.refuse("answer_id", "must not be empty")
        checks.number("score", score, least=1, most=5)
        checks.text("rater", request.rater, max_chars=MAX_NAME_CHARS, required=False)
        checks.text("comment", request.comment, max_chars=MAX_COMMENT_CHARS, required=False)
        checks.done()
        ratings = self._kept()
        replaced = await ratings.rate(
            current(),
            request.answer_id,
            score=score,
            rater=request.rater,
            comment=request.comment,
        )
        stored = ratings.keeps_comments and bool(request.comment)
        return pb.RateAnswerResponse(replaced=replaced, comment_stored=stored)

    async def GetFeedback(
        self, request: pb.GetFeedbackRequest, context: Context
    ) -> pb.GetFeedbackResponse:
        checks = Checks()
        checks.text("collection", request.collection, max_chars=MAX_NAME_CHARS, required=False)
        checks.number("days", request.days, least=0, most=MAX_DAYS)
        checks.number("comments", request.comments, least=0, most=MAX_COMMENTS)
        checks.done()
        ratings, days = self._kept(), request.days or DEFAULT_DAYS
        tallies = await ratings.tallies(request.collection, days)
        comments = await ratings.comments(request.collection, days, request.comments)
        return pb.GetFeedbackResponse(
            templates=[_tally(it) for it in tallies], comments=[_comment(it) for it in comments]
        )

    def _kept(self) -> Ratings:
        if self._ratings is None:
            raise ServiceError(Reason.NO_DATABASE, "this gateway keeps no records of answers")
        return self._ratings


def _tally(tally: Tally) -> pb.TemplateFeedback:
    low, high = tally.interval
    return pb.TemplateFeedback(
        template=tally.made.template,
        template_revision=tally.made.template_revision,
        model=tally.made.model,
        model_revision=tally.made.model_revision,
        counts=tally.counts,
        mean=tally.mean,
        liked=tally.liked,
        liked_low=low,
        liked_high=high,
    )


def _comment(comment: Comment) -> pb.FeedbackComment:
    message = pb.FeedbackComment(
        answer_id=str(comment.answer_id),
        score=comment.score,
        comment=comment.text,
        template=comment.template,
        model=comment.model,
    )
    message.rated_at.FromDatetime(comment.rated_at)
    return message
