"""What work may cost at most, as far as that is known before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from quintet_gateway.billing.prices import Price, PriceTable

RESERVED_SECONDS = 30.0
"""Time that is reserved at most: all that a question has by default. The whole deadline of
a large document would hold more than any budget."""
_NANOS_A_MICRO = 1_000
_MILLION = 10**6
_HOUR = 3_600


@dataclass(frozen=True, slots=True)
class Most:
    """Nano-units that work costs at most, and the seconds that it has."""

    nanos: int
    seconds: float


NOTHING = Most(0, 0.0)


def most(
    prices: PriceTable,
    day: date,
    *,
    seconds: float,
    embedded: int = 0,
    models: Sequence[str] = (),
    read: int = 0,
    written: int = 0,
    at_once: int = 1,
) -> Most:
    """Return what work costs at most that embeds and has one of the generator's `models` read
    and write that many tokens, in `seconds` with `at_once` calls under way.

    Tokens cost what they cost with the dearest model that may be used; time what it costs at
    the dearest hop.
    """
    valid = [it for it in prices.prices if it.valid_from <= day < it.valid_until]
    generators = [it for it in (prices.of("generator", name, day) for name in models) if it]
    tokens = max((_generated(it, read, written) for it in generators), default=0)
    tokens += embedded * max((it.embedding_per_million for it in valid), default=0)
    hourly = max((it.compute_per_hour for it in valid), default=0)
    time = min(seconds, RESERVED_SECONDS) * at_once * hourly / _HOUR
    return Most(-(-tokens * _NANOS_A_MICRO // _MILLION) + int(time * _NANOS_A_MICRO) + 1, seconds)


def _generated(price: Price, read: int, written: int) -> int:
    dearest = max(price.input_per_million, price.cached_input_per_million or 0)
    return read * dearest + written * price.output_per_million
