"""How well passages answer a query, from the states of their tokens.

MaxSim is ColBERT's late interaction (Khattab and Zaharia, 2020), here over a model
that was not trained for it; mixed with the cosine of the pooled vectors it orders
better than either alone, see docs/adr/0004.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quintet_embedder.models import TextStates, Vectors

MAX_SIM_SHARE = 0.5
"""Share of MaxSim in the score; the rest is the cosine. Chosen by bench/rerank_quality.py."""


def max_sim_scores(
    query: TextStates, passages: Sequence[TextStates], share: float = MAX_SIM_SHARE
) -> list[float]:
    """Return the score of each passage, -1 to 1; `share` of it is MaxSim.

    MaxSim is the mean, over the query's tokens, of each one's best cosine with a token
    of the passage. The two special tokens around each text don't take part. Where a text
    has no others (tokenizers drop characters of no width) MaxSim is -1.
    """
    asked = _unit(query.tokens[1:-1])
    vector = _unit(query.vector)
    scores = []
    for passage in passages:
        told = _unit(passage.tokens[1:-1])
        late = float((asked @ told.T).max(axis=1).mean()) if asked.size and told.size else -1.0
        cosine = float(vector @ _unit(passage.vector))
        scores.append(share * late + (1 - share) * cosine)
    return scores


def _unit(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths
