"""An answer's text on its way to the caller: filtered, cited, and sentence by sentence
where only what is supported may be told."""

from __future__ import annotations

from collections.abc import Iterator

from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet_gateway.alignment import Alignment
from quintet_gateway.citations import Citer, Sentence
from quintet_gateway.remote_loads import RemoteLoads

Told = str | Sentence | generator_pb.Citation
"""Text to append, a sentence that has been told, or a source of text that has been."""


class AnswerText:
    """Turns what the generator sends into what is told.

    `grounded_only`: sentences that nothing supports are left out, and `dropped` counts
    them. Without `loads` nothing is filtered. Positions in what is told are those of
    what is told.
    """

    def __init__(self, citer: Citer, loads: RemoteLoads | None, *, grounded_only: bool) -> None:
        self.dropped = 0
        self._citer = citer
        self._loads = loads
        self._grounded_only = grounded_only
        self._model_cites = False
        self._waiting: list[generator_pb.Citation] = []
        self._told: list[generator_pb.Citation] = []
        self._text = ""
        self._chosen = Alignment()

    def feed(self, text: str) -> Iterator[Told]:
        """Take the next piece of the answer; yield what can be told now."""
        yield from self._take(self._loads.feed(text) if self._loads else text)

    def cite(self, citation: generator_pb.Citation) -> Iterator[Told]:
        """Take a source that the model itself names."""
        self._model_cites = True
        self._waiting.append(citation)
        yield from self._due_citations()

    def finish(self) -> Iterator[Told]:
        """Yield the rest."""
        if self._loads:
            yield from self._take(self._loads.finish())
        for sentence in self._citer.finish():
            yield from self._ended(sentence)

    def _take(self, text: str) -> Iterator[Told]:
        self._text += text
        if text and not self._grounded_only:
            self._chosen.keep(len(text))
            yield text
        yield from self._due_citations()
        for sentence in self._citer.feed(text):
            yield from self._ended(sentence)

    def _ended(self, sentence: Sentence) -> Iterator[Told]:
        if self._grounded_only:
            yield from self._chosen_part(sentence)
            if not sentence.supported:
                return
        yield from self._due_citations()
        for citation in () if self._model_cites else sentence.citations:
            yield self._moved(citation, citation.answer_start, citation.answer_end)
        start, end = self._chosen.after(sentence.start), self._chosen.after(sentence.end)
        # Those of the model were told as it named them.
        named = [it for it in self._told if it.answer_start < end and it.answer_end > start]
        citations = named if self._model_cites else sentence.citations
        yield Sentence(start, end, sentence.support, sentence.supported, citations)

    def _chosen_part(self, sentence: Sentence) -> Iterator[str]:
        """Yield the text up to the sentence's end if it is supported."""
        part = self._text[self._chosen.read : sentence.end]
        if not sentence.supported:
            self.dropped += 1
            self._chosen.drop(len(part))
            return
        if not self._chosen.kept:
            self._chosen.drop(len(part) - len(part.lstrip()))
            part = part.lstrip()
        self._chosen.keep(len(part))
        yield part

    def _due_citations(self) -> Iterator[generator_pb.Citation]:
        """Yield the model's citations of text that has been told."""
        while self._waiting:
            citation = self._waiting[0]
            if self._loads and self._loads.alignment.read < citation.answer_end:
                return
            start, end = citation.answer_start, citation.answer_end
            if self._loads:
                start, end = self._loads.alignment.after(start), self._loads.alignment.after(end)
            if self._chosen.read < end:
                return
            self._waiting.pop(0)
            moved = self._moved(citation, start, end)
            if moved.answer_end > moved.answer_start:
                self._told.append(moved)
                yield moved

    def _moved(
        self, citation: generator_pb.Citation, start: int, end: int
    ) -> generator_pb.Citation:
        moved = generator_pb.Citation()
        moved.CopyFrom(citation)
        moved.answer_start = self._chosen.after(start)
        moved.answer_end = self._chosen.after(end)
        return moved
