"""Refines what a search found, as its request asks: the embedder's reranking, if there is
time for it, and then what `refining.py` does."""

from __future__ import annotations

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.degradation import out_of_time
from quintet_gateway.refining import Hits, RefiningLimits, candidates, refined
from quintet_servicekit.errors import ServiceError
from quintet_servicekit.executor import BoundedExecutor

STEP = "reranking"


class Refiner:
    """Refines hits; `executor` runs what is long for many candidates."""

    def __init__(
        self, services: Services, limits: RefiningLimits, executor: BoundedExecutor
    ) -> None:
        self._services = services
        self._limits = limits
        self._executor = executor

    def candidates(self, refinement: pb.Refinement, wanted: int) -> int:
        """Return how many hits to find for a refinement that leaves `wanted` of them."""
        return candidates(refinement, wanted, self._limits)

    async def refined(
        self, chain: Chain, text: str, hits: Hits, refinement: pb.Refinement, wanted: int
    ) -> Hits:
        """Return at most `wanted` passages of the `hits` for a question, best first; the
        first holds the best hit.

        Raises `ServiceError` OVERLOADED where too many are being refined, and as the
        embedder does where its failure may not be passed over.
        """
        if refinement.rerank and hits:
            hits = await self._reranked(chain, text, hits)
        if refinement == pb.Refinement(rerank=refinement.rerank, candidates=refinement.candidates):
            return hits[:wanted]
        return await self._executor.run(refined, hits, refinement, wanted, self._limits)

    async def _reranked(self, chain: Chain, text: str, hits: Hits) -> Hits:
        try:
            if chain.is_short_for("Rerank"):
                raise out_of_time(STEP)
            reranked = await chain.unary(
                self._services.peer("embedder"),
                "Rerank",
                self._services.embedder.Rerank,
                embedder_pb.RerankRequest(
                    query=text,
                    passages=[hit.text for hit in hits],
                    truncation=embedder_pb.TRUNCATION_END,
                ),
                replaceable=True,
            )
        except ServiceError as error:
            chain.degradations.pass_over(
                STEP,
                error,
                pb.SUBSTITUTE_STEP_SKIPPED,
                "passages stand in the order in which they were found",
            )
            return hits
        return [_scored(hits[it.index], it.score) for it in reranked.results]


def _scored(hit: retriever_pb.Hit, score: float) -> retriever_pb.Hit:
    scored = retriever_pb.Hit()
    scored.CopyFrom(hit)
    scored.score = scored.scores.rerank = score
    return scored
