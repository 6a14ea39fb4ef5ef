"""Compares models, and what is done to what was found, by the answers that come of it.

All ways answer the same questions. Of XQuAD and ClapNQ they are of the half that no
threshold was fitted to, with an answer in their collection and without
(`evaluation.answers` says how); an answer is right if it holds a reference (XQuAD), or
has a token F1 of at least .4 (ClapNQ). A refusal, the gateway's or that of a model that
says that it does not know, scores nothing. Of linked notes they are headings, and
sentences with a link without the link's words; an answer is right if it cites the section
below the heading, or the document that the link leads to.

    QUINTET_EVAL_DATA=... python -m evaluation answers [--seconds 240 --resume]

With `--seconds` it asks no longer than that; `--resume` goes on from what was asked before.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench.answer_quality import is_exact, normalised, token_f1
from evaluation.answers import Row, halves_of, is_held_out, lines
from evaluation.asking import Answer, Corpora, Question, Way, answers
from evaluation.chunking import sections
from evaluation.links import markdown, unlinked_rest
from evaluation.routing import is_right
from evaluation.scoring import interval, paired
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet_servicekit.sentences import sentence_spans

SEED = 20
SAMPLE = 100
"""Questions of a set with an answer in their collection, and as many without."""

_MODEL = pb.AskRequest(model="smollm2-135m-instruct")
_WHOLE = {"QUINTET_GENERATOR_EVIDENCE_SENTENCES": "0"}
MODELS = (
    Way("extractive"),
    Way("SmolLM2-135M, passages whole", _MODEL, _WHOLE),
    Way("SmolLM2-135M, best three sentences: both together", _MODEL),
)


def _refined(**fields: Any) -> pb.AskRequest:
    return pb.AskRequest(refinement=pb.Refinement(**fields))


REFINEMENTS = (
    MODELS[0],
    Way("reranked", _refined(rerank=True, candidates=20)),
    Way("MMR, λ .7", _refined(mmr_lambda=0.7, candidates=20)),
    Way("near-duplicates collapsed, .7", _refined(collapse_similarity=0.7, candidates=20)),
    Way("neighbours merged", _refined(merge_neighbours=True, candidates=20)),
)
LINKS = (
    Way("5 passages"),
    Way("5 passages + 2 linked", pb.AskRequest(linked_passages=2)),
    Way("7 passages", pb.AskRequest(passages=7)),
)
COMPARISONS = {
    "models": MODELS,
    "evidence": MODELS[1:],
    "links": LINKS,
    "refinements": REFINEMENTS,
}
"""Ways by the name of what they compare; each is held against the first."""

_FAR = 10**9
_SAYS_NO = re.compile(
    r"\bI (?:do not|don['’]t) know\b|\b(?:is|are) not (?:mentioned|stated|specified|provided)\b"
    r"|\b(?:it|passages?|texts?|context|documents?) (?:do|does)(?: not|n['’]t)"
    r" (?:say|specify|provide|mention|state|contain|hold|give|answer)\b"
    r"|\bno (?:information|mention)\b|\b(?:unable to|cannot) (?:answer|determine|find|say)\b",
    re.IGNORECASE,
)


def corpora(data: Path) -> Corpora:
    """Return the documents of all collections."""
    xquad = lines(data / "xquad32-dev" / "corpus.jsonl")
    halves = halves_of(xquad)
    return {
        "xquad-0": _documents(it for it in xquad if halves[it["_id"]] == 0),
        "xquad-1": _documents(it for it in xquad if halves[it["_id"]] == 1),
        "clapnq": _documents(lines(data / "clapnq" / "corpus.jsonl")),
        "notes": list(markdown(sections(data / "notes-foam" / "notes").documents)),
    }


def _documents(rows: Iterable[Row]) -> list[pb.Document]:
    return [pb.Document(id=it["_id"], title=it["title"], content=it["text"]) for it in rows]


def texts(data: Path, sample: int = SAMPLE) -> list[Question]:
    """Return the questions of XQuAD and ClapNQ by turns; a larger sample begins with the
    smaller ones."""
    halves = halves_of(lines(data / "xquad32-dev" / "corpus.jsonl"))
    xquad = _drawn(lines(data / "xquad32-dev" / "queries.jsonl"), sample)
    clapnq = lines(data / "clapnq" / "queries.jsonl")
    had = _drawn([it for it in clapnq if it["answers"]], sample)
    none = _drawn([it for it in clapnq if not it["answers"]], sample)
    by_turns = [
        [_question("xquad", f"xquad-{halves[it['gold_doc']]}", it) for it in xquad],
        [_question("xquad", f"xquad-{1 - halves[it['gold_doc']]}", it, ()) for it in xquad],
        [_question("clapnq", "clapnq", it) for it in had],
        [_question("clapnq", "clapnq", it) for it in none],
    ]
    return [it for turn in zip_longest(*by_turns) for it in turn if it]


def _question(
    of: str, collection: str, row: Row, references: Sequence[str] | None = None
) -> Question:
    given = row["answers"] if references is None else references
    return Question(of, collection, row["_id"], row["text"], tuple(given))


def _drawn(rows: Sequence[Row], sample: int) -> list[Row]:
    held_out = sorted((it for it in rows if is_held_out(it["_id"])), key=lambda it: str(it["_id"]))
    random.Random(SEED).shuffle(held_out)
    return held_out[:sample]


def notes(data: Path) -> list[Question]:
    """Return headings, which are after the section below, and sentences with a link, which
    are after the document that it leads to."""
    task = sections(data / "notes-foam" / "notes")
    found = [
        Question("headings", "notes", f"heading {number}", it.query, (), place)
        for number, it in enumerate(task.queries)
        for place in [(it.document, it.start, it.end)]
    ]
    behind: dict[str, tuple[str, int, int]] = {}
    for link in lines(data / "notes-foam" / "links.jsonl"):
        text = task.documents[link["source"]]
        at = text.find(link["raw"])
        for start, end in sentence_spans(text):
            rest = unlinked_rest(text[start:end])
            if link["resolved"] and start <= at < end and rest:
                behind.setdefault(rest, (link["resolved"], 0, _FAR))
    for number, (rest, place) in enumerate(behind.items()):
        found.append(Question("sentences", "notes", f"sentence {number}", rest, (), place))
    return found


async def compared(data: Path, kept: Path, seconds: float, folder: Path) -> dict[str, Any]:
    """Return the figures of all comparisons, of what is asked within so many seconds and of
    what `kept` holds from before."""
    of_texts = texts(data)
    with_answer = [it for it in of_texts if it.references]
    asked = {
        "models": of_texts,
        "evidence": of_texts,
        "links": notes(data),
        "refinements": with_answer,
    }
    wanted = {
        (way.name, it.key): (way, it)
        for name, ways in COMPARISONS.items()
        for it in asked[name]
        for way in ways
    }
    until = time.monotonic() + seconds
    found = await answers(list(wanted.values()), corpora(data), kept, until, folder)
    return {
        name: figures(asked[name], [way.name for way in ways], found)
        for name, ways in COMPARISONS.items()
    }


def figures(
    asked: Sequence[Question], ways: Sequence[str], found: Sequence[Answer]
) -> dict[str, Any]:
    """Return by set and way the means over the questions that were answered in every way,
    with their 95 % intervals, and by how much each way exceeds the first."""
    by_way = {way: {it.question: it for it in found if it.way == way} for way in ways}
    asked = [it for it in asked if all(it.key in its for its in by_way.values())]
    told: dict[str, Any] = {}
    for name in dict.fromkeys(it.of for it in asked):
        had = [it for it in asked if it.of == name and (it.references or it.place)]
        none = [it for it in asked if it.of == name and not (it.references or it.place)]
        scores = {way: [scored(it, by_way[way][it.key]) for it in had] for way in ways}
        refused = {way: [float(is_refusal(by_way[way][it.key])) for it in none] for way in ways}
        first = ways[0]
        told[name] = {"with an answer": len(had), "without": len(none), "ways": {}}
        for way, its in scores.items():
            means = {
                key: _told([it[key] for it in its], [it[key] for it in scores[first]])
                for key in its[0]
            }
            if none:
                means["refused rightly"] = _told(refused[way], refused[first])
            told[name]["ways"][way] = means
    return told


def is_refusal(answer: Answer) -> bool:
    """Whether it says that the documents don't say."""
    return answer.abstained or bool(_SAYS_NO.search(answer.text))


def scored(question: Question, answer: Answer) -> dict[str, float]:
    """Return the scores of an answer to a question that has one."""
    is_refused = is_refusal(answer)
    text = "" if is_refused else answer.text
    told = {"refused wrongly": float(is_refused), "words": float(len(text.split()))}
    if question.place:
        return {"right": float(cites(answer, question.place)), **told}
    row = {"answers": question.references}
    return {
        "right": float(is_right(question.of, row, text)),
        "recall": max(recall(text, it) for it in question.references),
        "f1": max(token_f1(text, it) for it in question.references),
        "exact": float(is_exact(text, question.references)),
        **told,
    }


def cites(answer: Answer, place: tuple[str, int, int]) -> bool:
    """Whether a citation of the answer lies in the place, or reaches into it."""
    document, start, end = place
    return any(it == document and a < end and b > start for it, a, b in answer.cited)


def recall(answer: str, reference: str) -> float:
    """Return the share of the reference's distinct words, normalised, that an answer holds."""
    wanted = set(normalised(reference).split())
    return len(wanted & set(normalised(answer).split())) / len(wanted) if wanted else 0.0


def _told(values: Sequence[float], first: Sequence[float]) -> dict[str, Any]:
    low, high = interval(values)
    against = asdict(paired(values, first))
    return {"mean": sum(values) / len(values), "low": low, "high": high, "against": against}
