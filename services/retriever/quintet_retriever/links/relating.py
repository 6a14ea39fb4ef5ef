"""Ranks the neighbourhood of documents by the links around them.

A walk goes out from the seeds and follows a link at random, from or to where it stands,
and at most one more; a document's score is the chance that the walk comes to it, the
second step counting half. That is personalised PageRank (Haveliwala, WWW 2002) cut off
after two steps: an index that links to everything says little of each, and two ways to a
document say more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log2

from quintet_retriever.links.models import Link, RelatedDocument, Seed

SECOND_STEP = 0.5
"""What the second step counts."""
IN_STRETCH = 3.0
"""How much more a link counts that stands in the stretch of a seed that was asked for."""


@dataclass(slots=True)
class _Reached:
    document_id: str
    title: str
    score: float = 0.0
    best: float = 0.0
    path: tuple[Link, ...] = field(default=())

    def add(self, chance: float, path: tuple[Link, ...]) -> None:
        self.score += chance
        if chance > self.best:
            self.best, self.path = chance, path


class Walk:
    """A walk that has not taken a step yet. `seeds`: their keys, with the stretches that
    were asked for."""

    def __init__(self, seeds: Mapping[int, Sequence[Seed]]) -> None:
        self._seeds = seeds
        self._reached: dict[int, _Reached] = {}
        self._paths: dict[int, tuple[float, tuple[Link, ...]]] = {
            key: (1 / len(seeds), ()) for key in seeds
        }

    @property
    def frontier(self) -> list[int]:
        """Keys of the documents from which the next step goes out."""
        return list(self._paths)

    def step(self, links: Iterable[tuple[int, Link]]) -> None:
        """Take a step over `links`, each with the key of the document that it is followed
        from. The documents that it leads to are the next frontier, but for seeds."""
        around: dict[int, list[Link]] = {}
        for near, link in links:
            around.setdefault(near, []).append(link)
        found: dict[int, _Reached] = {}
        for near, its in around.items():
            chance, path = self._paths[near]
            weigh = self._weight(near)
            weights = [weigh(link) for link in its]
            for link, weight in zip(its, weights, strict=True):
                far, identifier, title = _other_end(link, near)
                if far in self._seeds:
                    continue
                share = chance * weight / sum(weights)
                found.setdefault(far, _Reached(identifier, title)).add(share, (*path, link))
        self._paths = {key: (SECOND_STEP * it.score, it.path) for key, it in found.items()}
        for key, it in found.items():
            known = self._reached.setdefault(key, it)
            if known is not it:
                # It was nearer before: that path stays.
                known.score += it.score

    def ranked(self, limit: int) -> list[RelatedDocument]:
        """Return the documents that were reached, the likeliest first."""
        order = sorted(self._reached.values(), key=lambda it: (-it.score, it.document_id))
        return [
            RelatedDocument(it.document_id, it.title, it.score, it.path) for it in order[:limit]
        ]

    def _weight(self, near: int) -> Callable[[Link], float]:
        stretches = [(it.start, it.end) for it in self._seeds.get(near, ()) if it.end]

        def weigh(link: Link) -> float:
            weight = 1 + log2(max(1, link.occurrence_count))
            stands_within = link.source_key == near and any(
                place.start < end and place.end > start
                for place in link.occurrences
                for start, end in stretches
            )
            return weight * IN_STRETCH if stands_within else weight

        return weigh


def _other_end(link: Link, near: int) -> tuple[int, str, str]:
    if link.source_key == near:
        assert link.target_key is not None
        return link.target_key, link.target_id, link.target_title
    return link.source_key, link.source_id, link.source_title
