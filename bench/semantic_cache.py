"""Measures what semantic hits gain and how often they are wrong, on Quora's pairs.

Every pair is a question that is cached and one that is asked. It is served when the
cosine of our own model is at least a threshold and, with the guard, when
`quintet_gateway.question_guard` lets it pass. Of the labels of the pairs:

    hit rate           duplicates that were served, of all duplicates
    wrong, of hits     non-duplicates that were served, of all that were served
    wrong, of asked    non-duplicates that were served, of all pairs

Then a stream: each different question of a half, in an order that is its hash's, looks
for its nearest among all before it. Few of those pairs have a label.

    QUINTET_EVAL_DATA=... python -m bench.semantic_cache [--publish] [--list]

The guard's rules were chosen on the half "tuned"; what is published is "held out".
Halves share no question, directly or over other pairs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.semantic_chart import svg
from quintet_embedder.checkpoint import read_checkpoint
from quintet_embedder.lanes import plan_lanes
from quintet_embedder.models import Purpose
from quintet_embedder.settings import Settings, model_folder
from quintet_embedder.tokenization import ModelTokenizer
from quintet_gateway.question_guard import same_meaning_possible, signature
from quintet_gateway.semantic_index import MOST_ALIKE, SemanticIndex

THRESHOLDS = (0.70, 0.75, 0.80, 0.85, 0.90, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99)
CHOSEN = 0.90
DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- measured -->\n", "<!-- end of what is measured -->\n"

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Pairs of questions, [pairs] each; `cached` and `asked` are rows of `texts`."""

    texts: Sequence[str]
    cached: NDArray[np.int64]
    asked: NDArray[np.int64]
    duplicate: Flags
    held_out: Flags
    """[texts]"""


@dataclass(frozen=True)
class Rates:
    """What was served: counts of hits and of wrong ones, and shares of 1."""

    hits: int
    wrong: int
    hit_rate: float
    wrong_of_hits: float
    wrong_of_asked: float


@dataclass(frozen=True)
class Served:
    """A hit of the stream; `duplicate` is None where the pair has no label."""

    asked: str
    cached: str
    similarity: float
    duplicate: bool | None


@dataclass(frozen=True)
class Measured:
    """One half: rates by threshold, and the streams at the chosen one."""

    pairs: int
    duplicates: int
    questions: int
    plain: Sequence[Rates]
    guarded: Sequence[Rates]
    equal: Rates
    """Of the pairs of both halves that differ in punctuation only."""
    wrong: Sequence[tuple[str, str]]
    """Pairs that the guard lets pass and the labels don't."""
    stream: Sequence[Served]
    unguarded: Sequence[bool | None]
    microseconds: float


def load(path: Path) -> Pairs:
    """Read the pairs and divide their questions into two halves."""
    with path.open(encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    texts = sorted({it[side] for it in read for side in ("text_a", "text_b")})
    place = {text: index for index, text in enumerate(texts)}
    cached = np.array([place[it["text_a"]] for it in read])
    asked = np.array([place[it["text_b"]] for it in read])
    first = list(range(len(texts)))

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = first[first[index]]
            index = first[index]
        return index

    for pair in zip(cached.tolist(), asked.tolist(), strict=True):
        one, other = sorted(map(root, pair))
        first[other] = one
    held_out = [bool(_hash(texts[root(index)])[0] & 1) for index in range(len(texts))]
    labels = np.array([it["label"] == 1 for it in read])
    return Pairs(texts, cached, asked, labels, np.array(held_out))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def embed(texts: Sequence[str]) -> Floats:
    """Return normalised vectors [texts, dimension] of the service's own engine."""
    settings = Settings()
    checkpoint = read_checkpoint(model_folder(settings))
    tokenizer = ModelTokenizer(checkpoint.tokenizer_file, checkpoint.max_tokens)
    lane = next(it for it in plan_lanes(checkpoint, settings) if Purpose.QUERY in it.purposes)
    lane.open()
    ids, _ = await tokenizer.encode(["text"] * len(texts), texts, truncate=True)
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    batches = [order[start : start + 64] for start in range(0, len(order), 64)]
    vectors = [lane.encode([ids[index] for index in batch]) for batch in batches]
    found = np.concatenate(vectors)[np.argsort(order)]
    normalised: Floats = found / np.linalg.norm(found, axis=1, keepdims=True)
    return normalised


def rates(served: Flags, duplicate: Flags) -> Rates:
    """Return what became of pairs of which some were served."""
    hits, wrong = int(served.sum()), int((served & ~duplicate).sum())
    hit_rate = (hits - wrong) / max(1, int(duplicate.sum()))
    return Rates(hits, wrong, hit_rate, wrong / max(1, hits), wrong / len(duplicate))


def stream(pairs: Pairs, vectors: Floats, *, held_out: bool) -> list[Served]:
    """Ask each question of a half once and return what the index served."""
    labels = _labels(pairs)
    index = SemanticIndex(
        max_questions=len(pairs.texts), max_scope_questions=len(pairs.texts), threshold=CHOSEN
    )
    served = []
    for at in _order(pairs, held_out=held_out):
        text, vector = pairs.texts[at], vectors[at].astype("<f4").tobytes()
        near = index.nearest(b"", vector, signature(text))
        if near is not None:
            other = int.from_bytes(near.key)
            duplicate = labels.get(frozenset((at, other)))
            served.append(Served(text, near.question, near.similarity, duplicate))
        index.add(b"", at.to_bytes(4), vector, text)
    return served


def unguarded_stream(pairs: Pairs, vectors: Floats, *, held_out: bool) -> list[bool | None]:
    """Do the same without the guard; return the labels of the hits."""
    labels = _labels(pairs)
    order = np.array(_order(pairs, held_out=held_out))
    ordered = vectors[order]
    found: list[bool | None] = []
    for start in range(0, len(order), 512):
        block = ordered[start : start + 512]
        scores = block @ ordered[: start + len(block)].T
        # Only what was asked before can have been cached.
        scores[:, start:][np.triu_indices(len(block))] = -1
        nearest = scores.argmax(axis=1)
        for row in np.flatnonzero(scores.max(axis=1) >= CHOSEN):
            pair = frozenset((int(order[start + row]), int(order[nearest[row]])))
            found.append(labels.get(pair))
    return found


def _labels(pairs: Pairs) -> dict[frozenset[int], bool]:
    columns = (pairs.cached.tolist(), pairs.asked.tolist(), pairs.duplicate.tolist())
    return {frozenset((one, other)): it for one, other, it in zip(*columns, strict=True)}


def _order(pairs: Pairs, *, held_out: bool) -> list[int]:
    half = np.flatnonzero(pairs.held_out == held_out).tolist()
    return sorted(half, key=lambda at: _hash(pairs.texts[at]))


def _bare(text: str) -> list[str]:
    """Return the text without case, spaces and commonest punctuation."""
    return text.lower().replace("?", " ").replace(".", " ").replace(",", " ").split()


def table(plain: Sequence[Rates], guarded: Sequence[Rates]) -> list[str]:
    """Return the rows of the published table."""
    lines = [
        "| cosine ≥ | hit rate | wrong, of hits | wrong, of asked"
        " | hit rate | wrong, of hits | wrong, of asked |",
        "|---|---|---|---|---|---|---|",
    ]
    for threshold, one, other in zip(THRESHOLDS, plain, guarded, strict=True):
        cells = [
            f"{it.hit_rate:.1%} | {it.wrong_of_hits:.1%} ({it.wrong} of {it.hits})"
            f" | {it.wrong_of_asked:.2%}"
            for it in (one, other)
        ]
        lines.append(f"| {threshold:.2f} | {cells[0]} | {cells[1]} |")
    return lines


def counted(labels: Sequence[bool | None], asked: int) -> str:
    """Return a row of the stream's table."""
    right, wrong = labels.count(True), labels.count(False)
    return (
        f"{asked:,} | {len(labels):,} ({len(labels) / asked:.1%}) | {right:,} | {wrong:,}"
        f" | {labels.count(None):,} |"
    )


def microseconds(texts: Sequence[str]) -> float:
    """Return how long a signature takes, the median of five rounds."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        for text in texts:
            signature(text)
        took.append((time.perf_counter() - began) / len(texts) * 1e6)
    return float(np.median(took))


def measured(pairs: Pairs, vectors: Floats, *, held_out: bool) -> Measured:
    """Return everything that is measured on one half."""
    half = pairs.held_out[pairs.cached] == held_out
    cached, asked, duplicate = pairs.cached[half], pairs.asked[half], pairs.duplicate[half]
    cosine = np.einsum("ij,ij->i", vectors[cached], vectors[asked])
    columns = zip(cached.tolist(), asked.tolist(), strict=True)
    texts = [(pairs.texts[one], pairs.texts[other]) for one, other in columns]
    passes = np.array(
        [same_meaning_possible(signature(one), signature(other)) for one, other in texts]
    )
    both = zip(pairs.cached.tolist(), pairs.asked.tolist(), strict=True)
    equal = np.array([_bare(pairs.texts[one]) == _bare(pairs.texts[two]) for one, two in both])
    wrong = np.flatnonzero(passes & ~duplicate & (cosine >= CHOSEN))
    return Measured(
        pairs=len(duplicate),
        duplicates=int(duplicate.sum()),
        questions=int((pairs.held_out == held_out).sum()),
        plain=[rates(cosine >= it, duplicate) for it in THRESHOLDS],
        guarded=[rates((cosine >= it) & passes, duplicate) for it in THRESHOLDS],
        equal=rates(equal, pairs.duplicate),
        wrong=[texts[at] for at in wrong],
        stream=stream(pairs, vectors, held_out=held_out),
        unguarded=unguarded_stream(pairs, vectors, held_out=held_out),
        microseconds=microseconds(pairs.texts[::50]),
    )


def report(it: Measured) -> str:
    """Return what the page shows, as Markdown."""
    guarded = [hit.duplicate for hit in it.stream]
    lines = [
        f"{it.pairs:,} pairs, {it.duplicates:,} of them duplicates; first without the guard,"
        " then with it:",
        "",
        *table(it.plain, it.guarded),
        "",
        f"Pairs of both halves that differ in nothing but case, spaces and `?.,`: {it.equal.hits},"
        f" of which the labels call {it.equal.wrong} ({it.equal.wrong_of_hits:.1%}) no duplicates.",
        "",
        f"The stream, at a cosine of {CHOSEN:.2f}:",
        "",
        "| | asked | served | labelled duplicate | labelled otherwise | no label |",
        "|---|---|---|---|---|---|",
        f"| without the guard | {counted(it.unguarded, it.questions)}",
        f"| with the guard | {counted(guarded, it.questions)}",
        "",
        f"A signature takes {it.microseconds:.0f} µs. A look-up compares at most {MOST_ALIKE}"
        " vectors, those of equal signatures.",
    ]
    return "\n".join(lines)


def publish(it: Measured) -> None:
    """Write the page's measured part and the chart."""
    page = DOCS / "semantic-cache.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{report(it)}\n\n{END}{after}", encoding="utf-8")
    points = [[(at.wrong_of_hits, at.hit_rate) for at in each] for each in (it.plain, it.guarded)]
    chart = svg(THRESHOLDS, *points, floor=it.equal.wrong_of_hits)
    (DOCS / "semantic-cache.svg").write_text(chart, encoding="utf-8")


def main() -> None:
    """Measure, print, and write the page with `--publish`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--publish", action="store_true", help="write docs/semantic-cache.*")
    parser.add_argument("--list", action="store_true", help="print hits that no label calls right")
    parser.add_argument("--tuned", action="store_true", help="measure the tuned half instead")
    arguments = parser.parse_args()
    if arguments.publish and arguments.tuned:
        parser.error("only the held-out half is published")
    pairs = load(Path(os.environ["QUINTET_EVAL_DATA"]) / "cache-qqp-dev" / "pairs.jsonl")
    print(f"{len(pairs.duplicate):,} pairs of {len(pairs.texts):,} questions: embedding")
    vectors = asyncio.run(embed(pairs.texts))
    found = measured(pairs, vectors, held_out=not arguments.tuned)
    print(report(found))
    if arguments.list:
        for one, other in found.wrong:
            print(f"pair: {one} | {other}")
        for hit in found.stream:
            if not hit.duplicate:
                print(f"stream, {hit.similarity:.3f}: {hit.cached} | {hit.asked}")
    if arguments.publish:
        publish(found)


if __name__ == "__main__":
    main()
