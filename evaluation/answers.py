"""Measures answers through the gateway: right ones, refusals, and what supports them.

XQuAD's paragraphs are put into two collections by turns, so that every question has a
collection that holds its paragraph and one that holds others of the same article: there
the right answer is that the documents don't say. ClapNQ has questions that people found
its passages not to answer. Figures are given for the half of the questions that nothing
was fitted to (`held_out`); a threshold is looked up in the answerability of answers that
were asked for with none.

    QUINTET_EVAL_DATA=... python -m evaluation.answers
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.answer_quality import contains, is_exact, token_f1
from evaluation.support import area
from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from quintet_gateway.settings import Settings
from quintet_local.supervisor import OPEN, running_stack

CALLS = 4
SECONDS = 120.0
"""Longest time for an answer: a busy machine must not change what is answered."""
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A question and its answer; `references` are empty where the documents don't say."""

    id: str
    references: tuple[str, ...]
    answer: str
    answerability: float

    @property
    def held_out(self) -> bool:
        """Whether nothing was fitted to it."""
        return is_held_out(self.id)

    @property
    def contained(self) -> bool:
        """Whether the answer holds a reference."""
        return contains(self.answer, self.references)

    @property
    def f1(self) -> float:
        """SQuAD's token F1."""
        return max((token_f1(self.answer, it) for it in self.references), default=0.0)

    @property
    def exact(self) -> bool:
        """Whether the answer is a reference."""
        return is_exact(self.answer, self.references)


async def asked(stub: Any, data: Path, prefix: str = "eval") -> dict[str, list[Asked]]:
    """Ingest the sets into collections of their own and return what was answered."""
    xquad = lines(data / "xquad32-dev" / "corpus.jsonl")
    halves = halves_of(xquad)
    names = [f"{prefix}-xquad-{half}" for half in (0, 1)]
    for half, name in enumerate(names):
        await ingested_as(stub, name, (it for it in xquad if halves[it["_id"]] == half))
    await ingested_as(stub, f"{prefix}-clapnq", lines(data / "clapnq" / "corpus.jsonl"))
    questions = lines(data / "xquad32-dev" / "queries.jsonl")
    there = [(names[halves[it["gold_doc"]]], it) for it in questions]
    elsewhere = [(names[1 - halves[it["gold_doc"]]], {**it, "answers": []}) for it in questions]
    clapnq = [(f"{prefix}-clapnq", it) for it in lines(data / "clapnq" / "queries.jsonl")]
    return {
        "xquad": await _answers(stub, [*there, *elsewhere]),
        "clapnq": await _answers(stub, clapnq),
    }


def is_held_out(id_: str) -> bool:
    """Whether nothing was fitted to the question of that id."""
    return sum(map(ord, id_)) % 2 == 1


def halves_of(corpus: Sequence[Row]) -> dict[str, int]:
    """Return by id which of the two collections, 0 or 1, a paragraph is put into."""
    return {it["_id"]: place % 2 for place, it in enumerate(corpus)}


def answered(found: Sequence[Asked]) -> Row:
    """Return the figures of the questions that have an answer."""
    had = [it for it in found if it.references]
    return {
        "questions": len(had),
        "contained": mean(it.contained for it in had),
        "f1": mean(it.f1 for it in had),
        "exact": mean(it.exact for it in had),
        "words": mean(len(it.answer.split()) for it in had),
    }


def refusals(found: Sequence[Asked], threshold: float) -> Row:
    """Return shares of all questions with an answer (answered right, refused wrongly) and
    of those without (refused rightly), on the held-out half."""
    held_out = [it for it in found if it.held_out]
    had = [it for it in held_out if it.references]
    had_none = [it for it in held_out if not it.references]
    return {
        "threshold": threshold,
        "answered right": mean(it.contained and it.answerability >= threshold for it in had),
        "refused wrongly": mean(it.answerability < threshold for it in had),
        "refused rightly": mean(it.answerability < threshold for it in had_none),
    }


def told_apart(found: Sequence[Asked]) -> float:
    """Return the area under the ROC curve of answerability, on the held-out half."""
    had, none = (
        [it.answerability for it in found if it.held_out and bool(it.references) is has]
        for has in (True, False)
    )
    return area(had, none)


async def figures(stub: Any, data: Path) -> dict[str, Any]:
    """Return all figures of the gateway behind `stub`."""
    found = await asked(stub, data)
    shipped = Settings().abstain_below
    thresholds = sorted({shipped, *THRESHOLDS})
    return {
        name: {
            "answered": answered(answers),
            "refusals": [refusals(answers, it) for it in thresholds],
            "shipped": refusals(answers, shipped),
            "area": told_apart(answers),
        }
        for name, answers in found.items()
    }


async def ingested_as(stub: Any, name: str, corpus: Iterable[Row]) -> None:
    """Bring a corpus in as a new collection of that name."""
    await stub.CreateCollection(pb.CreateCollectionRequest(name=name))
    requests = [
        pb.IngestRequest(
            collection=name,
            document=pb.Document(id=it["_id"], title=it["title"], content=it["text"]),
        )
        for it in corpus
    ]
    async for response in stub.Ingest(iter(requests)):
        assert response.HasField("ingested"), response


async def _answers(stub: Any, questions: Sequence[tuple[str, Row]]) -> list[Asked]:
    gate = asyncio.Semaphore(CALLS)

    async def answer(collection: str, question: Row) -> Asked:
        request = pb.AskRequest(
            collection=collection,
            question=question["text"],
            abstain_below=0,
            cache=pb.CACHE_POLICY_NONE,
            fail_if_degraded=True,
        )
        async with gate:
            response = await stub.Ask(request, timeout=SECONDS)
        judged = response.HasField("abstention")
        return Asked(
            question["_id"],
            tuple(question["answers"]),
            response.answer,
            response.abstention.answerability if judged else 1.0,
        )

    return await asyncio.gather(*(answer(*it) for it in questions))


def mean(values: Iterable[float]) -> float:
    """Return the mean of at least one value."""
    listed = list(values)
    return sum(listed) / len(listed)


def lines(path: Path) -> list[Row]:
    """Return the objects of a file that has one a line."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


async def main() -> None:
    """Print the figures of a stack of its own."""
    data = Path(os.environ["QUINTET_EVAL_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        async with (
            running_stack(Path(folder) / "state", environment=OPEN) as stack,
            grpc.aio.insecure_channel(stack.gateway) as channel,
        ):
            print(json.dumps(await figures(GatewayServiceStub(channel), data), indent=2))


if __name__ == "__main__":
    asyncio.run(main())
