"""What operators write of models and templates, as a part of a tenant's policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MOST_TRIALS = 20


class Routing(BaseModel):
    """Questions with an ease of `threshold` and more are the model `easy`'s, others the
    model `hard`'s; an empty name is the generator's first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    easy: str = Field("extractive", max_length=200)
    hard: str = Field("", max_length=200)
    threshold: float = Field(0.8, ge=0, le=1)


def _at_most_all(shares: dict[str, float]) -> dict[str, float]:
    if sum(shares.values()) > 100:
        raise ValueError("the templates have more than 100 percent together")
    return shares


Shares = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=200)], Annotated[float, Field(ge=0, le=100)]
    ],
    Field(max_length=MOST_TRIALS),
    AfterValidator(_at_most_all),
]
"""Percent of questions by the name of their template; the rest has the default one."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What holds for one tenant. `routing` is None where its questions are not routed."""

    routing: Routing | None
    templates: Mapping[str, float]
