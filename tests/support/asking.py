"""What a question of the gateway is bound by, and services that fail as they are told to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace
from typing import Any, cast

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.clients import Services
from quintet_gateway.degradation import Degradations
from quintet_gateway.generators import Template
from quintet_gateway.question import AskLimits
from quintet_gateway.refining import RefiningLimits
from quintet_servicekit.errors import ServiceError

LIMITS = AskLimits(
    default_passages=5,
    context_tokens=1_500,
    prompt_overhead_tokens=160,
    passage_overhead_tokens=40,
    default_answer_tokens=256,
    min_citation_support=0.6,
    duplicate_similarity=0.7,
    remove_loads=True,
    withhold_instructions=True,
    abstain_below=0.2,
    max_staleness_seconds=60,
    refining=RefiningLimits(refine_candidates=20, merged_tokens=512),
)
"""The shipped ones, but for the staleness."""
TEMPLATE = Template("answer", "t")

BIG, SMALL, EXTRACTIVE = (
    generator_pb.Model(name=name, backend=backend)
    for name, backend in (("big", "openai"), ("small", "openvino"), ("sentences", "extractive"))
)
SERVICES = cast(
    Services,
    SimpleNamespace(
        tokenizer=SimpleNamespace(Count=None),
        generator=SimpleNamespace(GenerateStream=None),
        peer=lambda name: SimpleNamespace(name=name),
    ),
)


class BrokenChain:
    """Fails as it is told to: `broken` has each model's error, and `estimated` says
    whether the tokenizer's own model fails."""

    def __init__(
        self,
        broken: Mapping[str, ServiceError],
        *,
        forbidden: bool = False,
        estimated: bool = False,
        after_text: bool = False,
    ) -> None:
        self.degradations = Degradations(forbidden=forbidden)
        self.left_out: list[pb.LeftOut] = []
        self.tried: list[str] = []
        self._broken = broken
        self._estimated = estimated
        self._after_text = after_text

    async def unary(
        self, peer: Any, method: str, call: Any, request: Any, **_: Any
    ) -> tokenizer_pb.CountResponse:
        counts = [1] * len(request.texts)
        return tokenizer_pb.CountResponse(counts=counts, estimated=self._estimated)

    async def stream(
        self, peer: Any, method: str, call: Any, request: Any, **_: Any
    ) -> AsyncGenerator[generator_pb.GenerateStreamResponse]:
        self.tried.append(request.model)
        error = self._broken.get(request.model)
        if error is not None and not self._after_text:
            raise error
        delta = generator_pb.TextDelta(text="Honey.")
        yield generator_pb.GenerateStreamResponse(text_delta=delta)
        if error is not None:
            raise error
        completed = generator_pb.Completed(model=request.model)
        yield generator_pb.GenerateStreamResponse(completed=completed)
