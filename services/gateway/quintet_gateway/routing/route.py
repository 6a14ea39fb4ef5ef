"""The models between which a question is routed, and the choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry import trace
from prometheus_client import Counter

from quintet.gateway.v1 import routing_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.generators import key_of_model
from quintet_gateway.routing.difficulty import VERSION, ease
from quintet_servicekit import attributes
from quintet_servicekit.cache import key_of

_ROUTED = Counter(
    "quintet_gateway_routed_questions_total",
    "Questions that a tenant's policy routed, by the model that was chosen and by difficulty.",
    ("model", "difficulty"),
)


@dataclass(frozen=True)
class Route:
    """The model for easy questions, the one for others, and the ease that parts them."""

    easy: generator_pb.Model
    hard: generator_pb.Model
    threshold: float

    @property
    def key(self) -> str:
        """Key of all that decides the choice but the question and what it finds."""
        return key_of(VERSION, key_of_model(self.easy), repr(self.threshold))

    def chosen(
        self, question: str, hits: Sequence[retriever_pb.Hit]
    ) -> tuple[generator_pb.Model, pb.Routing]:
        """Return the model for a question that found `hits`, and why; counts it, and tells
        the current span."""
        judged = ease(question, hits)
        easy = judged.ease >= self.threshold
        model = self.easy if easy else self.hard
        _ROUTED.labels(model.name, "easy" if easy else "hard").inc()
        trace.get_current_span().set_attributes(
            {attributes.ROUTING_EASE: judged.ease, attributes.ROUTING_EASY: easy}
        )
        return model, pb.Routing(
            model=model.name,
            easy=easy,
            ease=judged.ease,
            threshold=self.threshold,
            features=[
                pb.RoutingFeature(name=it.name, value=it.value, weight=it.weight)
                for it in judged.features
            ],
        )
