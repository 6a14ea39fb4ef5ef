"""Follows links from what a search found to further passages, where a request asks for it.

An optional step: if too little time is left for it, or the retriever fails or is slow, the
answer is made without it and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TypeAlias

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.retriever.v1 import link_service_pb2 as links_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.degradation import out_of_time
from quintet_gateway.searching import QueryVector
from quintet_servicekit.errors import Reason, ServiceError

STEP = "link expansion"
MAX_LINKED = 10
"""Further passages at most."""
MAX_SEEDS = 200
"""Passages to start from that the retriever takes."""

Linked: TypeAlias = Sequence[links_pb.RelatedPassage]


class LinkExpander:
    """Finds passages one link away."""

    def __init__(self, services: Services) -> None:
        self._links = services.links
        self._peer = services.link_peer()

    async def linked(
        self,
        chain: Chain,
        query: links_pb.RelatedPassagesRequest,
        vector: QueryVector | None,
        hits: Sequence[retriever_pb.Hit],
    ) -> Linked:
        """Return at most `query.limit` passages of documents that those of `hits` link to, or
        are linked from, the best first; none where none are asked for.

        Raises `ServiceError` as the retriever does where its failure may not be passed over.
        """
        if not query.limit or not hits:
            return ()
        if vector is not None:
            query.vector, query.embedding_revision = vector.packed, vector.revision
        query.seeds.extend(
            links_pb.RelatedRequest.Seed(document_id=it.document_id, start=it.start, end=it.end)
            for it in islice(hits, MAX_SEEDS)
        )
        try:
            if chain.is_short_after("Search"):
                raise out_of_time(STEP)
            found = await self._found(chain, query)
        except ServiceError as error:
            chain.degradations.pass_over(
                STEP,
                error,
                pb.SUBSTITUTE_STEP_SKIPPED,
                "documents that are linked with those found were not looked at",
            )
            return ()
        return found.passages

    async def _found(
        self, chain: Chain, query: links_pb.RelatedPassagesRequest
    ) -> links_pb.RelatedPassagesResponse:
        try:
            return await self._asked(chain, query)
        except ServiceError as error:
            if error.reason is not Reason.MODEL_MISMATCH:
                raise
        # The collection was made anew since it was searched: its passages are chosen by
        # words, rather than by a vector of the model of before.
        query.ClearField("vector")
        query.ClearField("embedding_revision")
        return await self._asked(chain, query)

    async def _asked(
        self, chain: Chain, query: links_pb.RelatedPassagesRequest
    ) -> links_pb.RelatedPassagesResponse:
        return await chain.unary(
            self._peer,
            "RelatedPassages",
            self._links.RelatedPassages,
            query,
            replaceable=True,
        )


def mark(passages: Sequence[pb.Passage], linked: Linked) -> None:
    """Say of each passage that was found through a link by which."""
    links = {(it.hit.document_id, it.hit.chunk_index): it.link for it in linked}
    for passage in passages:
        link = links.get((passage.hit.document_id, passage.hit.chunk_index))
        if link is not None:
            passage.link.CopyFrom(link)
