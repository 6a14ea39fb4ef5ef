"""What was found, as JSON and as pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.answers_page import filled
from evaluation.chunking import BUDGET
from evaluation.scoring import MEASURES, Difference, Scores, difference
from evaluation.sets import SOURCES, Published, Source

_HEAD = """# Quality of retrieval

Written by `make eval`; how stands in [`evaluation/`](../evaluation/). Each set is brought in
through the gateway, a document in one piece, into a database of its own, and each of its
judged queries is asked in every mode at the settings that ship. Figures of others stand beside
ours. Differences are of mean nDCG@10, with the 95 % interval of a paired bootstrap over the
queries (10,000 resamples).
"""


CHUNKING = "chunking"
"""Name of the comparison of ways to cut documents."""
ANSWERS = "answers"
"""Name of the comparison of answers."""

_CHUNKING = """## Ways to cut documents

Commit of {date}. The mean share, in percent, of what is looked for that stands in the best
{budget} tokens of a hybrid search. Headings of linked notes look for the section below them,
in Markdown; questions for the paragraph that they were written for, in articles put together
from paragraphs, which have no other structure. What ships is the last line.
"""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One set's scores by mode; `date` is that of the commit that was evaluated."""

    date: str
    documents: int
    queries: int
    scores: Mapping[str, Scores]

    def differences(self) -> dict[str, Difference]:
        """Return by how much hybrid search exceeds the other modes, by their names."""
        ours = self.scores["hybrid"]
        return {
            mode: difference(ours, scores)
            for mode, scores in self.scores.items()
            if mode != "hybrid"
        }


class Report:
    """Sets by name; those that are not evaluated anew stay as they were."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sets: dict[str, dict[str, object]] = {}
        if file.exists():
            self._sets = json.loads(file.read_text(encoding="utf-8"))

    def put(self, name: str, found: Evaluated) -> None:
        """Note a set's result and save the file."""
        self._sets[name] = {
            "date": found.date,
            "documents": found.documents,
            "queries": found.queries,
            "modes": {mode: dict(scores.means) for mode, scores in found.scores.items()},
            "hybrid_exceeds": {
                mode: asdict(it) | {"verdict": it.verdict}
                for mode, it in found.differences().items()
            },
        }
        self._save()

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._sets, indent=1) + "\n", encoding="utf-8")

    def put_chunking(
        self, date: str, queries: Mapping[str, int], shares: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Note the shares found, by way to cut and kind of query, and save the file."""
        self._sets[CHUNKING] = {"date": date, "queries": queries, "shares": shares}
        self._save()

    def put_answers(self, date: str, compared: Mapping[str, object]) -> None:
        """Note the comparisons of answers, and save the file."""
        self._sets[ANSWERS] = {"date": date, "compared": compared}
        self._save()

    def publish(self, docs: Path) -> None:
        """Write the pages in the folder: quality.md, and the figures in answers.md."""
        parts = [
            _HEAD,
            *(_section(SOURCES[it], self._sets[it]) for it in SOURCES if it in self._sets),
        ]
        if CHUNKING in self._sets:
            parts.append(_chunking(self._sets[CHUNKING]))
        (docs / "quality.md").write_text("\n".join(parts), encoding="utf-8")
        if ANSWERS in self._sets:
            page, found = docs / "answers.md", self._sets[ANSWERS]
            assert isinstance(found["compared"], dict)
            told = filled(page.read_text("utf-8"), found["compared"], str(found["date"]))
            page.write_text(told, encoding="utf-8")


def _section(source: Source, found: Mapping[str, object]) -> str:
    modes, exceeds = found["modes"], found["hybrid_exceeds"]
    assert isinstance(modes, dict) and isinstance(exceeds, dict)
    lines = [
        f"## {source.title}",
        "",
        f"Commit of {found['date']}; {found['documents']:,} documents,"
        f" {found['queries']:,} queries.",
        "",
        "| mode | nDCG@10 | Recall@100 | MRR | others' nDCG@10 / Recall@100 | hybrid exceeds |",
        "|---|---|---|---|---|---|",
    ]
    for mode, means in modes.items():
        ours = " | ".join(f"{means[measure]:.4f}" for measure in MEASURES)
        beside = _published(source.published.get(mode))
        lines.append(f"| {mode} | {ours} | {beside} | {_difference(exceeds.get(mode))} |")
    return "\n".join([*lines, ""])


def _chunking(found: Mapping[str, object]) -> str:
    queries, shares = found["queries"], found["shares"]
    assert isinstance(queries, dict) and isinstance(shares, dict)
    titles = [f"{task}, {count}" for task, count in queries.items()]
    lines = [
        _CHUNKING.format(date=found["date"], budget=BUDGET),
        f"| cut at | {' | '.join(titles)} |",
        "|---" * (len(titles) + 1) + "|",
        *(
            f"| {name} | {' | '.join(f'{100 * by_task[task]:.1f}' for task in queries)} |"
            for name, by_task in shares.items()
        ),
    ]
    return "\n".join([*lines, ""])


def _published(found: Published | None) -> str:
    if found is None:
        return "–"
    recall = "–" if found.recall is None else f"{found.recall:.4f}"
    return f"{found.ndcg:.4f} / {recall} ({found.who})"


def _difference(found: Mapping[str, object] | None) -> str:
    if found is None:
        return "–"
    return f"{found['mean']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f}): {found['verdict']}"
