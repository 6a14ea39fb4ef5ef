"""Scores of a ranking, by pytrec_eval, and whether two rankings differ by more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytrec_eval

from evaluation.sets import Judgements

Run = Mapping[str, Mapping[str, float]]
"""Score of each document that was found, by the id of the query."""

MEASURES = {"ndcg@10": "ndcg_cut_10", "recall@100": "recall_100", "mrr": "recip_rank"}
"""What is reported, and what pytrec_eval calls it."""

_RESAMPLES = 10_000
_SEED = 6


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores by measure, and the nDCG@10 of each query in the order of the judgements."""

    means: Mapping[str, float]
    ndcg_by_query: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one mean exceeds another, and its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says: "above", "below" or "equal within chance"."""
        if self.low > 0:
            return "above"
        return "below" if self.high < 0 else "equal within chance"


def score(judgements: Judgements, run: Run) -> Scores:
    """Return the scores of a run. A query for which nothing was found scores 0."""
    evaluator = pytrec_eval.RelevanceEvaluator(judgements, set(MEASURES.values()))
    found = evaluator.evaluate(run)
    by_query = {
        name: [found.get(query, {}).get(measure, 0.0) for query in judgements]
        for name, measure in MEASURES.items()
    }
    means = {name: float(np.mean(values)) for name, values in by_query.items()}
    return Scores(means, tuple(by_query["ndcg@10"]))


def difference(one: Scores, other: Scores) -> Difference:
    """Return by how much the nDCG@10 of `one` exceeds that of `other`, over the queries."""
    return paired(one.ndcg_by_query, other.ndcg_by_query)


def paired(one: Sequence[float], other: Sequence[float]) -> Difference:
    """Return by how much the mean of `one` exceeds that of `other`, by a paired bootstrap."""
    pairs = np.subtract(one, other, dtype=float)
    return Difference(float(pairs.mean()), *interval(pairs.tolist()))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by a bootstrap over the values."""
    listed = np.asarray(values, dtype=float)
    random = np.random.default_rng(_SEED)
    means = [
        listed[random.integers(len(listed), size=len(listed))].mean() for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
