"""The price table: what tokens and time cost, by hop and model and date."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

SHIPPED = Path(__file__).with_name("prices.yaml")
ANY_MODEL = "*"

Micros = Annotated[StrictInt, Field(ge=0, le=10**12)]
"""Micro-units (1e-6) of the currency. Whole numbers: sums of floats don't add up."""


class Price(BaseModel):
    """What a hop's calls to a model cost from `valid_from` until the day before
    `valid_until`, in UTC; absent: always. `model` "*" is any that has no price of its own.

    Token prices are for a million tokens. Without a price of their own, cached input
    tokens cost as much as others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hop: Literal["tokenizer", "embedder", "retriever", "generator"]
    model: str = Field(ANY_MODEL, min_length=1)
    valid_from: date = date.min
    valid_until: date = date.max
    input_per_million: Micros = 0
    cached_input_per_million: Micros | None = None
    output_per_million: Micros = 0
    embedding_per_million: Micros = 0
    compute_per_hour: Micros = 0

    @model_validator(mode="after")
    def _lasts(self) -> Price:
        if self.valid_from >= self.valid_until:
            raise ValueError("valid_until must be after valid_from")
        return self


class PriceTable(BaseModel):
    """All prices, in one currency; for a hop and model at most one on any day."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = Field(pattern="^[A-Z]{3}$")
    prices: tuple[Price, ...]

    @model_validator(mode="after")
    def _one_at_a_time(self) -> PriceTable:
        by_model = defaultdict(list)
        for price in self.prices:
            by_model[price.hop, price.model].append(price)
        for (hop, model), prices in by_model.items():
            for one, other in pairwise(sorted(prices, key=lambda it: it.valid_from)):
                if other.valid_from < one.valid_until:
                    raise ValueError(
                        f"two prices of {hop} {model!r} are valid on {other.valid_from}"
                    )
        return self

    def of(self, hop: str, model: str, day: date) -> Price | None:
        """Return the price of a hop's calls to `model` on that day; None if there is none."""
        return self._valid(hop, model, day) or self._valid(hop, ANY_MODEL, day)

    def _valid(self, hop: str, model: str, day: date) -> Price | None:
        for price in self.prices:
            if (price.hop, price.model) == (hop, model) and (
                price.valid_from <= day < price.valid_until
            ):
                return price
        return None


FREE = PriceTable(currency="XXX", prices=())
"""The table of who keeps no books; XXX is ISO 4217's code of no currency."""


def today() -> date:
    """Return the day by which prices are valid."""
    return datetime.now(UTC).date()
