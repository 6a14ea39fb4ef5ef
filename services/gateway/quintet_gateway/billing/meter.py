"""Adds up what a request costs, call by call.

Every call is counted when it ends, whatever way it ends, so that what a failed or
abandoned request took is in the metrics all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache

from prometheus_client import Counter

from quintet.cache.v1 import cache_service_pb2 as cache_pb
from quintet.gateway.v1 import bill_pb2 as pb
from quintet_gateway.billing.prices import FREE, Price, PriceTable, today
from quintet_gateway.billing.spent import NOTHING, Spent
from quintet_servicekit import telemetry

_LABELS = ("model", "hop")
_COST = Counter(
    "quintet_cost_micros_total",
    "Cost of calls, in micro-units (1e-6) of the price table's currency.",
    _LABELS,
)
_SAVED = Counter(
    "quintet_cost_saved_micros_total",
    "What kept results saved, in micro-units of the price table's currency.",
    _LABELS,
)
_UNPRICED = Counter(
    "quintet_cost_unpriced_calls_total", "Calls that the price table has no price for.", _LABELS
)
_cost, _saved, _unpriced = (cache(it.labels) for it in (_COST, _SAVED, _UNPRICED))


@cache
def _warn_of_tokens(model: str, hop: str) -> None:
    # Once a process: a table whose last day has passed must not go unseen.
    telemetry.logger().warning("tokens have no price and pass every budget", hop=hop, model=model)


_NANOS_AN_HOUR = 3_600 * 10**9
_PICOS_A_MICRO = 10**6
_PICOS_A_NANO = 10**3
_SERVED = (cache_pb.CACHE_OUTCOME_HIT, cache_pb.CACHE_OUTCOME_STALE, cache_pb.CACHE_OUTCOME_SHARED)


@dataclass(slots=True)
class _Line:
    """Sums of one hop and model; amounts in pico-units, in which every price of a token
    is whole."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    embedding: int = 0
    compute_ns: int = 0
    cost: int = 0
    saved: int = 0
    estimated: bool = False
    unpriced: bool = False

    def add(self, more: _Line) -> None:
        """Add another's numbers."""
        self.input += more.input
        self.cached_input += more.cached_input
        self.output += more.output
        self.embedding += more.embedding
        self.compute_ns += more.compute_ns
        self.cost += more.cost
        self.saved += more.saved
        self.estimated |= more.estimated
        self.unpriced |= more.unpriced


class Meter:
    """The bill of one request, by the prices of the day on which it came.

    `collection` is what it is about, once that is known to be there: names that callers make
    up would be sums without end. Who keeps books takes what is `due` as often as they
    like; `calls` is what it adds to the number of calls there, which is 1 for what callers
    count as one. `told` are trailers with what else there is to say of costs.
    """

    def __init__(self, prices: PriceTable = FREE, *, collection: str = "", calls: int = 1) -> None:
        self.day: date = today()
        self.collection = collection
        self.calls = calls
        self.prices = prices
        self.told: tuple[tuple[str, str], ...] = ()
        self._whole: Meter | None = None
        self._parts: dict[Meter, None] = {}
        self._lines: dict[tuple[str, str], _Line] = {}
        self._due: dict[tuple[str, str], _Line] = {}

    @property
    def tokens(self) -> int:
        """All tokens that were read, written and embedded for the request."""
        return sum(
            it.input + it.cached_input + it.output + it.embedding for it in self._lines.values()
        )

    @property
    def due_nanos(self) -> int:
        """What is due here, to the nearest nano-unit."""
        return _nanos(sum(it.cost for it in self._due.values()))

    def part(self, *, collection: str = "", calls: int = 0) -> Meter:
        """Return the meter of a part of the request: what it counts is counted here too."""
        part = Meter(self.prices, collection=collection or self.collection, calls=calls)
        part._whole = self
        return part

    def due(self) -> Iterator[pb.BillLine]:
        """Yield what was counted since the last time, of its parts too; each thing once,
        whether it is taken here or from the part that counted it.

        Their sums are those of the bill: what was rounded off comes with the next ones.
        """
        if self._whole is not None:
            self._whole._parts.pop(self, None)
        while self._parts:
            part, _ = self._parts.popitem()
            yield from part.due()
        lines, self._due = self._due, {}
        for (hop, model), it in lines.items():
            line = _message(hop, model, it)
            yield line
            rest = _Line(
                cost=it.cost - line.cost_nanos * _PICOS_A_NANO,
                saved=it.saved - line.saved_nanos * _PICOS_A_NANO,
            )
            if rest.cost or rest.saved:
                self._due.setdefault((hop, model), _Line()).add(rest)

    def called(
        self,
        hop: str,
        model: str,
        seconds: float,
        spent: Spent = NOTHING,
        use: cache_pb.CacheUse | None = None,
    ) -> None:
        """Count a call that the gateway waited `seconds` for and whose cache did `use`.

        What the cache served is saved and the rest is paid. Of a batch of which it served
        some, tokens are shared out by number.
        """
        use = use or cache_pb.CacheUse()
        fresh, of = _fresh(use)
        paid = _share(spent, fresh, of)
        waited_ns = round(seconds * 1e9) if fresh else 0
        saved_ns = use.saved.ToNanoseconds()
        price = self.prices.of(hop, model, self.day)
        cost = saved = 0
        if price is not None:
            cost = _amount(price, paid, waited_ns)
            # What is paid and what is saved together are what all of it would have cost.
            saved = _amount(price, spent, 0) - _amount(price, paid, 0)
            saved += _compute(price, saved_ns)
            _cost(model, hop).inc(cost / _PICOS_A_MICRO)
            _saved(model, hop).inc(saved / _PICOS_A_MICRO)
        elif self.prices is not FREE:
            _unpriced(model, hop).inc()
            if spent != NOTHING:
                _warn_of_tokens(model, hop)
        line = _Line(
            paid.input,
            paid.cached_input,
            paid.output,
            paid.embedding,
            waited_ns,
            cost,
            saved,
            paid.estimated,
            price is None,
        )
        self._add(hop, model, line)

    def spared(self, bill: pb.Bill) -> None:
        """Count the whole bill of a kept answer, or of one that another caller asks for, as
        saved."""
        for line in bill.lines:
            saved = line.cost_nanos + line.saved_nanos
            if not saved or bill.currency != self.prices.currency:
                continue
            _saved(line.model, line.hop).inc(saved * _PICOS_A_NANO / _PICOS_A_MICRO)
            self._add(line.hop, line.model, _Line(saved=saved * _PICOS_A_NANO))

    def bill(self) -> pb.Bill:
        """Return the bill so far; each line is rounded to the nearest nano-unit."""
        bill = pb.Bill(currency=self.prices.currency)
        for (hop, model), it in self._lines.items():
            line = bill.lines.add()
            line.CopyFrom(_message(hop, model, it))
            bill.cost_nanos += line.cost_nanos
            bill.saved_nanos += line.saved_nanos
            bill.estimated |= it.estimated
        return bill

    def _add(self, hop: str, model: str, more: _Line) -> None:
        self._due.setdefault((hop, model), _Line()).add(more)
        meter: Meter | None = self
        while meter is not None:
            meter._lines.setdefault((hop, model), _Line()).add(more)
            if meter._whole is not None:
                meter._whole._parts[meter] = None
            meter = meter._whole


def _message(hop: str, model: str, it: _Line) -> pb.BillLine:
    line = pb.BillLine(
        hop=hop,
        model=model,
        input_tokens=it.input,
        cached_input_tokens=it.cached_input,
        output_tokens=it.output,
        embedding_tokens=it.embedding,
        cost_nanos=_nanos(it.cost),
        saved_nanos=_nanos(it.saved),
        estimated=it.estimated,
        unpriced=it.unpriced,
    )
    if it.compute_ns:
        line.compute.FromNanoseconds(it.compute_ns)
    return line


def _fresh(use: cache_pb.CacheUse) -> tuple[int, int]:
    """Return how many of a call's results were computed for it, and of how many."""
    if use.lookups > 1:
        return use.lookups - use.hits, use.lookups
    return int(use.outcome not in _SERVED), 1


def _share(spent: Spent, part: int, of: int) -> Spent:
    """Return that part of what was spent, each number rounded up."""
    if part == of:
        return spent
    return Spent(
        input=-(-spent.input * part // of),
        cached_input=-(-spent.cached_input * part // of),
        output=-(-spent.output * part // of),
        embedding=-(-spent.embedding * part // of),
        estimated=bool(part),
    )


def _amount(price: Price, spent: Spent, waited_ns: int) -> int:
    cached = price.cached_input_per_million
    return (
        spent.input * price.input_per_million
        + spent.cached_input * (price.input_per_million if cached is None else cached)
        + spent.output * price.output_per_million
        + spent.embedding * price.embedding_per_million
        + _compute(price, waited_ns)
    )


def _compute(price: Price, nanoseconds: int) -> int:
    return nanoseconds * price.compute_per_hour * _PICOS_A_MICRO // _NANOS_AN_HOUR


def _nanos(picos: int) -> int:
    return (picos + _PICOS_A_NANO // 2) // _PICOS_A_NANO
