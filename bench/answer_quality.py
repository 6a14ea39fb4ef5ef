"""Compares the generator's backends on XQuAD's development questions.

Each question gets the three paragraphs that BM25 finds for it, as it would from the
retriever: the one with the answer is nearly always among them, and not always first.
An answer counts as right when it contains one of the reference answers (normalised
as SQuAD's evaluation does); token F1 is SQuAD's. F1 punishes every word beyond the
reference answer, so whole sentences can't reach much of it.

    QUINTET_EVAL_DATA=... python bench/answer_quality.py [--sample 100]

The language model answers a seeded sample, because it is slow; the extractive backend
answers everything, and that same sample again. Its weights were fitted on the articles
called "fitted" here; "held out" are the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import string
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quintet_generator.engine import Backend
from quintet_generator.evidence import EvidenceBackend
from quintet_generator.extractive import ExtractiveBackend
from quintet_generator.models import Passage, Query, TextDelta
from quintet_generator.openvino_backend import OpenVinoBackend
from quintet_generator.prompts import Templates
from quintet_generator.relevance import ranked
from quintet_generator.settings import GeneratorSettings
from quintet_generator.transformers_backend import TransformersBackend
from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.server import set_threads
from quintet_servicekit.words import stems

PASSAGES = 3
MAX_TOKENS = 64
SEED = 20


@dataclass(frozen=True)
class Question:
    """A question, its reference answers, and what BM25 found for it, best first."""

    text: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    gold_found: bool
    held_out: bool


@dataclass(frozen=True)
class Score:
    """Means over some questions."""

    questions: int
    contained: float
    f1: float
    exact: float
    words: float
    seconds: float


def normalised(text: str) -> str:
    """SQuAD's: lower case, no punctuation, no articles, single spaces."""
    text = "".join(it for it in text.lower() if it not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def contains(answer: str, references: Sequence[str]) -> bool:
    """Tell whether the answer contains a reference, as whole words."""
    padded = f" {normalised(answer)} "
    return any(f" {normalised(it)} " in padded for it in references)


def token_f1(answer: str, reference: str) -> float:
    """SQuAD's harmonic mean of token precision and recall."""
    given, wanted = normalised(answer).split(), normalised(reference).split()
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def is_exact(answer: str, references: Sequence[str]) -> bool:
    """Tell whether the answer is a reference, normalised."""
    return normalised(answer) in {normalised(it) for it in references}


class Bm25:
    """Okapi BM25 with k1 1.5 and b 0.75, over stems."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._counts = [Counter(stems(text)) for text in texts]
        self._lengths = [count.total() for count in self._counts]
        self._mean = sum(self._lengths) / len(texts)
        self._holding = Counter(word for count in self._counts for word in count)

    def best(self, question: str, number: int) -> list[int]:
        """Return the indices of the best texts, best first."""
        words = stems(question)
        scores = [self._score(words, index) for index in range(len(self._counts))]
        return sorted(range(len(scores)), key=lambda index: -scores[index])[:number]

    def _score(self, words: Sequence[str], index: int) -> float:
        count, score = self._counts[index], 0.0
        norm = 1.5 * (0.25 + 0.75 * self._lengths[index] / self._mean)
        for word in words:
            holding = self._holding[word]
            idf = math.log1p((len(self._counts) - holding + 0.5) / (holding + 0.5))
            score += idf * count[word] * 2.5 / (count[word] + norm)
        return score


def load(folder: Path) -> list[Question]:
    """Read the questions and find three paragraphs for each."""
    documents = _read(folder / "corpus.jsonl")
    index = Bm25([f"{it['title']} {it['text']}" for it in documents])
    titles = {it["_id"]: it["title"] for it in documents}
    fitted = set(sorted(set(titles.values()))[::2])
    questions = []
    for it in _read(folder / "queries.jsonl"):
        found = [documents[at] for at in index.best(it["text"], PASSAGES)]
        questions.append(
            Question(
                it["text"],
                tuple(it["answers"]),
                tuple(Passage(found_one["title"], found_one["text"]) for found_one in found),
                any(found_one["_id"] == it["gold_doc"] for found_one in found),
                titles[it["gold_doc"]] not in fitted,
            )
        )
    return questions


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


async def evaluate(backend: Backend, questions: Sequence[Question]) -> Score:
    """Ask the backend every question and score its answers."""
    template = Templates.packaged().get("answer")
    answers, began = [], time.perf_counter()
    for question in questions:
        query = Query("", question.text, question.passages, "answer", MAX_TOKENS * 4)
        if backend.name != "extractive":
            query = Query("", question.text, question.passages, "answer", MAX_TOKENS)
        async with aclosing(backend.generate(query, template)) as events:
            answers.append("".join([it.text async for it in events if isinstance(it, TextDelta)]))
    return scored(questions, answers, time.perf_counter() - began)


def scored(questions: Sequence[Question], answers: Sequence[str], seconds: float) -> Score:
    """Return the means."""
    pairs = list(zip(questions, answers, strict=True))
    n = len(pairs)
    return Score(
        n,
        sum(contains(answer, it.answers) for it, answer in pairs) / n,
        sum(max(token_f1(answer, ref) for ref in it.answers) for it, answer in pairs) / n,
        sum(is_exact(answer, it.answers) for it, answer in pairs) / n,
        sum(len(answer.split()) for answer in answers) / n,
        seconds / n,
    )


def best_sentence(question: Question) -> str:
    """Return the single best sentence, to compare with the floor."""
    for it in ranked(question.text, question.passages):
        return question.passages[it.passage_index].text[it.start : it.end]
    return ""


def row(name: str, score: Score) -> None:
    """Print a line of the table."""
    print(
        f"{name:<44}{score.questions:>6}{score.contained:>11.1%}{score.f1:>8.3f}"
        f"{score.exact:>8.1%}{score.words:>8.1f}{score.seconds:>9.3f}",
        flush=True,
    )


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=100, help="questions for the model; 0: none")
    parser.add_argument("--only", default="openvino,transformers", help="backends of the model")
    arguments = parser.parse_args()
    sample_size = arguments.sample
    questions = load(Path(os.environ["QUINTET_EVAL_DATA"]) / "xquad32-dev")
    sample = random.Random(SEED).sample(questions, sample_size)
    settings = GeneratorSettings()
    set_threads(settings.threads)
    executors = [BoundedExecutor(name, threads=1, queue=1) for name in ("a", "b", "c")]
    extractive = ExtractiveBackend(executors[0], sentences=settings.extractive_sentences)
    found = sum(it.gold_found for it in questions) / len(questions)
    print(f"paragraph with the answer among the {PASSAGES} given: {found:.1%}\n")
    print(f"{'':<44}{'n':>6}{'contained':>11}{'F1':>8}{'EM':>8}{'words':>8}{'s each':>9}")
    parts: list[tuple[str, Callable[[Question], bool]]] = [
        ("all", lambda _: True),
        ("fitted half", lambda it: not it.held_out),
        ("held-out half", lambda it: it.held_out),
    ]
    for name, part in parts:
        chosen = [it for it in questions if part(it)]
        single = scored(chosen, [best_sentence(it) for it in chosen], 0)
        row(f"extractive, best sentence alone, {name}", single)
        row(f"extractive, {name}", await evaluate(extractive, chosen))
    if sample:
        row("extractive, the sample", await evaluate(extractive, sample))
        served = OpenVinoBackend(settings, encoding=executors[1])
        reference = TransformersBackend(settings, encoding=executors[1], decoding=executors[2])
        for kind, model in (("openvino", served), ("transformers", reference)):
            if kind in arguments.only:
                await model.describe()
                await model.load()
                row(f"{model.name} by {kind}, the sample", await evaluate(model, sample))
                reduced = EvidenceBackend(
                    model, executors[0], sentences=settings.evidence_sentences
                )
                name = f"{model.name} by {kind}, from evidence"
                row(name, await evaluate(reduced, sample))
        await served.close()
    for executor in executors:
        await executor.close()


if __name__ == "__main__":
    asyncio.run(main())
