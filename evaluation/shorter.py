"""Measures what shorter extractive answers would gain in F1, and what they would lose.

The shipped rule gives up to three sentences that score at least .7 of the best one. Others
are compared with it on the half of the questions that nothing was fitted to (XQuAD's by
article, three paragraphs each by BM25; ClapNQ's with five): a higher margin, fewer
sentences, and the best sentence alone where it is decisive: where it holds so much of the
question's words, or that and the kind of thing that is asked for.

    QUINTET_EVAL_DATA=... python -m evaluation.shorter
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.answer_quality import Bm25, contains, load, token_f1
from evaluation.answers import is_held_out, lines
from evaluation.routing import LEAST_F1
from evaluation.scoring import Difference, paired
from quintet_generator.answer_types import answer_type, offers
from quintet_generator.extractive import _MARGIN
from quintet_generator.models import Passage
from quintet_generator.relevance import Candidate, ranked
from quintet_generator.settings import GeneratorSettings
from quintet_servicekit.words import stems

CLAPNQ_PASSAGES = 5


@dataclass(frozen=True)
class Asked:
    """A question, what answers it, and the sentences of its passages, best first."""

    question: str
    references: Sequence[str]
    sentences: Sequence[tuple[str, Candidate]]


Rule = Callable[[Asked], int]
"""Returns how many of the best sentences are given."""


def within(margin: float, most: int = GeneratorSettings().extractive_sentences) -> Rule:
    """Give those that score this part of the best one's."""

    def number(asked: Asked) -> int:
        scores = [it.score for _, it in asked.sentences[:most]]
        return sum(score >= margin * scores[0] for score in scores)

    return number


def decisive(share: float, *, typed: bool) -> Rule:
    """Give the best alone if it holds that share of the question's words and, if `typed`,
    the kind of thing that is asked for."""
    otherwise = within(_MARGIN)

    def number(asked: Asked) -> int:
        words, kind = frozenset(stems(asked.question)), answer_type(asked.question)
        for text, _ in asked.sentences[:1]:
            holds = len(words & frozenset(stems(text))) >= share * len(words)
            if holds and (not typed or (kind and offers(text, kind, words))):
                return 1
        return otherwise(asked)

    return number


RULES: Mapping[str, Rule] = {
    "ships": within(_MARGIN),
    "margin .75": within(0.75),
    "margin .8": within(0.8),
    "two at most": within(_MARGIN, 2),
    "one": within(_MARGIN, 1),
    **{f"one if it holds {share:.0%}": decisive(share, typed=False) for share in (0.8, 1.0)},
    **{f"{share:.0%} and the kind": decisive(share, typed=True) for share in (0.6, 0.8, 1.0)},
}


def xquad(data: Path) -> list[Asked]:
    """Return the held-out questions of XQuAD."""
    found = (it for it in load(data / "xquad32-dev") if it.held_out)
    return [_asked(it.text, it.answers, it.passages) for it in found]


def clapnq(data: Path) -> list[Asked]:
    """Return the held-out questions of ClapNQ that have an answer."""
    corpus = lines(data / "clapnq" / "corpus.jsonl")
    index = Bm25([f"{it['title']} {it['text']}" for it in corpus])
    passages = [Passage(it["title"], it["text"]) for it in corpus]
    found = []
    for it in lines(data / "clapnq" / "queries.jsonl"):
        if it["answers"] and is_held_out(it["_id"]):
            best = index.best(it["text"], CLAPNQ_PASSAGES)
            found.append(_asked(it["text"], it["answers"], [passages[at] for at in best]))
    return found


def _asked(question: str, references: Sequence[str], passages: Sequence[Passage]) -> Asked:
    best = ranked(question, passages)[: GeneratorSettings().extractive_sentences]
    texts = [passages[it.passage_index].text[it.start : it.end] for it in best]
    return Asked(question, references, list(zip(texts, best, strict=True)))


def scores(asked: Sequence[Asked], rule: Rule, *, by_f1: bool) -> tuple[list[float], list[float]]:
    """Return of each answer whether it is right, and its F1."""
    right, f1 = [], []
    for it in asked:
        answer = " ".join(text for text, _ in it.sentences[: rule(it)])
        f1.append(max(token_f1(answer, reference) for reference in it.references))
        right.append(float(f1[-1] >= LEAST_F1 if by_f1 else contains(answer, it.references)))
    return right, f1


def main() -> None:
    """Print the table."""
    data = Path(os.environ["QUINTET_EVAL_DATA"])
    for name, asked in (("xquad", xquad(data)), ("clapnq", clapnq(data))):
        print(f"{name}, {len(asked)} questions")
        plain = scores(asked, RULES["ships"], by_f1=name == "clapnq")
        for title, rule in RULES.items():
            its = scores(asked, rule, by_f1=name == "clapnq")
            told = [
                f"{np.mean(values):.3f} {_shown(paired(values, before))}"
                for values, before in zip(its, plain, strict=True)
            ]
            print(f"{title:>22}: right {told[0]}, F1 {told[1]}", flush=True)


def _shown(it: Difference) -> str:
    return f"({it.low:+.3f} to {it.high:+.3f})"


if __name__ == "__main__":
    main()
