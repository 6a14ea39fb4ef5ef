"""Judges whether the passages hold an answer at all, before one is made.

A logistic regression over what is known by then: the best cosine of the search, and how
much of the question the passages hold. It was fitted on half of the questions of ClapNQ,
whose unanswerable ones were found to be so by people, and of XQuAD, asked once with and
once without the paragraph that answers them; docs/answers.md has what it does on the
other half. Only questions in English are judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet_gateway.support import Evidence
from quintet_servicekit.words import STOP_WORDS, WORD, stems

ABSTENTION = "The documents don't say."
"""The answer's text then, for who shows nothing but that."""

CALIBRATED = "all-minilm-l6-v2"
"""Embedding model whose cosines it was fitted on; those of others have other scales."""
_COSINE, _SENTENCE, _PASSAGE, _MISSING, _BIAS = 7.7, 3.4, 2.3, -1.8, -6.4
_WORDS_SENTENCE, _WORDS_PASSAGE, _WORDS_MISSING, _WORDS_BIAS = 3.9, 2.6, -2.1, -2.6
"""The same without the cosine."""


def answerability(
    question: str, hits: Sequence[retriever_pb.Hit], evidence: Evidence, embedding_model: str
) -> float | None:
    """Return how likely the passages hold the question's answer, 0 to 1; None for a
    question that cannot be judged: one without an English function word, or without any
    other.

    `hits` are those of the search, `evidence` what was chosen of them.
    """
    is_english = any(word.casefold() in STOP_WORDS for word in WORD.findall(question))
    if not is_english or not stems(question):
        return None
    held = evidence.coverage(question)
    cosines = [it.scores.dense for it in hits if it.scores.HasField("dense")]
    if cosines and embedding_model.lower().endswith(CALIBRATED):
        logit = (
            _COSINE * max(0.0, *cosines)
            + _SENTENCE * held.sentence
            + _PASSAGE * held.passage
            + _MISSING * held.missing_names
            + _BIAS
        )
    else:
        logit = (
            _WORDS_SENTENCE * held.sentence
            + _WORDS_PASSAGE * held.passage
            + _WORDS_MISSING * held.missing_names
            + _WORDS_BIAS
        )
    return 1 / (1 + math.exp(-logit))
