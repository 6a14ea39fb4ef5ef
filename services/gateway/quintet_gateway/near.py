"""Semantic hits: the kept answer to a near question that means the same."""

from __future__ import annotations

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_gateway.chain import Chain
from quintet_gateway.kept import KeptAnswers, Served
from quintet_gateway.question import Question
from quintet_gateway.question_guard import signature
from quintet_gateway.searching import QueryVector
from quintet_gateway.semantic_index import SemanticIndex


class NearQuestions:
    """The questions whose answers are kept, by what they mean.

    `by_default` says whether requests that leave it to the server are served near
    questions' answers. The index is this replica's own.
    """

    def __init__(self, index: SemanticIndex, answers: KeptAnswers, *, by_default: bool) -> None:
        self._index = index
        self._answers = answers
        self._by_default = by_default

    def wanted(self, request: pb.AskRequest) -> bool:
        """Whether a request may be served a near question's answer."""
        if request.cache == pb.CACHE_POLICY_UNSPECIFIED:
            return self._by_default
        return request.cache == pb.CACHE_POLICY_SEMANTIC

    async def look_up(self, chain: Chain, question: Question, vector: QueryVector) -> Served | None:
        """Return the answer to the nearest question of the same scope that is near
        enough, passes the guard and whose answer holds."""
        words = question.text
        near = self._index.nearest(question.scope.encode(), vector.packed, signature(words))
        if near is None:
            return None
        served = await self._answers.serve(chain, question, near.key.decode(), "l1-semantic")
        if not isinstance(served, Served) or served.kept.no_passages:
            self._index.discard(near.key)
            return None
        served.about.question = served.kept.question
        served.about.similarity = near.similarity
        return served

    def remember(self, question: Question, vector: QueryVector) -> None:
        """Take in a question whose answer is kept."""
        scope, key = question.scope.encode(), question.key.encode()
        self._index.add(scope, key, vector.packed, question.text)
