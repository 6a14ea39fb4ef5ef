"""Makes the context of a prompt out of what was found: each passage cleaned, repeats
left out, and as many as the model has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quintet.gateway.v1 import gateway_service_pb2 as pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet.retriever.v1 import retriever_service_pb2 as retriever_pb
from quintet.tokenizer.v1 import tokenizer_service_pb2 as tokenizer_pb
from quintet_gateway.chain import Chain
from quintet_gateway.clients import Services
from quintet_gateway.near_duplicates import near_duplicates
from quintet_gateway.packing import pack
from quintet_gateway.passage_text import PassageText, Spans, given_of
from quintet_gateway.question import Question
from quintet_gateway.reader import Reader
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.invisible import visible
from quintet_servicekit.token_estimate import estimate_tokens


@dataclass(frozen=True)
class Given:
    """A passage that the generator is given; `title` is its document's."""

    hit: retriever_pb.Hit
    title: str
    text: PassageText
    instructions: Spans
    withheld: bool

    @classmethod
    def of(cls, hit: retriever_pb.Hit, reader: Reader, *, withhold: bool) -> Given:
        """Return what is given of a hit; `withhold` its instructions, and a title that reads
        like one."""
        text, title = hit.text, visible(hit.title)
        instructions = reader.instructions(text)
        if withhold and reader.instructions(title):
            title = ""
        return cls(
            hit, title, given_of(text, instructions if withhold else ()), instructions, withhold
        )

    def citation(self, citation: generator_pb.Citation) -> pb.Citation:
        """Return a citation of it with the document's characters."""
        start, end = self.text.stretch(citation.passage_start, citation.passage_end)
        return pb.Citation(
            passage=citation.passage_index + 1,
            document_id=self.hit.document_id,
            answer_start=citation.answer_start,
            answer_end=citation.answer_end,
            document_start=self.hit.start + start,
            document_end=self.hit.start + end,
            support=citation.support,
        )

    def message(self, number: int) -> pb.Passage:
        """Return it as callers are told of it."""
        flagged = [
            pb.InstructionSpan(
                document_start=self.hit.start + start,
                document_end=self.hit.start + end,
                withheld=self.withheld,
            )
            for start, end in self.instructions
        ]
        return pb.Passage(number=number, hit=self.hit, instructions=flagged)


class Context:
    """Chooses what the generator is given."""

    def __init__(self, services: Services, reader: Reader) -> None:
        self._services = services
        self._reader = reader

    async def chosen(
        self, chain: Chain, question: Question, hits: Sequence[retriever_pb.Hit]
    ) -> list[Given]:
        """Return the passages for the prompt, best first, at least one; the trail tells
        of the others. If all of all of them is withheld, they are returned without text.

        Raises `ServiceError` as the tokenizer does.
        """
        limits = question.limits
        found = [Given.of(hit, self._reader, withhold=limits.withhold_instructions) for hit in hits]
        if not any(it.text.text.strip() for it in found):
            return found
        empty = {index for index, it in enumerate(found) if not it.text.text.strip()}
        repeats = near_duplicates(
            [it.text.text for it in found], limits.duplicate_similarity, self._reader.shingles
        )
        question_tokens, *sizes = await self._counts(
            chain,
            question.generator.tokenizer,
            [question.text, *(f"{it.title}\n{it.text.text}" for it in found)],
        )
        tokens = [size + limits.passage_overhead_tokens for size in sizes]
        budget = self._budget(question, question_tokens)
        kept = pack(tokens, budget, repeats.keys() | empty)
        for index, hit in enumerate(hits):
            if index in kept:
                continue
            left_out = pb.LeftOut(
                document_id=hit.document_id,
                chunk_index=hit.chunk_index,
                reason=pb.LEFT_OUT_REASON_NO_ROOM,
                tokens=tokens[index],
            )
            if index in empty:
                left_out.reason = pb.LEFT_OUT_REASON_INSTRUCTIONS
            elif index in repeats:
                same = hits[repeats[index]]
                left_out.reason = pb.LEFT_OUT_REASON_NEAR_DUPLICATE
                left_out.same_as_document_id = same.document_id
                left_out.same_as_chunk_index = same.chunk_index
            chain.left_out.append(left_out)
        return [found[index] for index in kept]

    @staticmethod
    def _budget(question: Question, question_tokens: int) -> int:
        """Return the tokens that the passages may have together."""
        limits, context = question.limits, question.generator.context_tokens
        if not context:
            return limits.context_tokens
        answer = question.request.max_tokens or limits.default_answer_tokens
        taken = limits.prompt_overhead_tokens + question_tokens + answer
        return min(limits.context_tokens, context - taken)

    async def _counts(self, chain: Chain, model: str, texts: Sequence[str]) -> Sequence[int]:
        """Return the number of tokens of each text, estimated if the tokenizer is away."""
        try:
            counted = await chain.unary(
                self._services.peer("tokenizer"),
                "Count",
                self._services.tokenizer.Count,
                tokenizer_pb.CountRequest(model=model, texts=texts),
                replaceable=True,
            )
        except ServiceError as error:
            _note_estimate(chain, error)
            return [estimate_tokens(text) for text in texts]
        if counted.estimated:
            _note_estimate(chain, _no_tokenizer())
        return counted.counts


def _note_estimate(chain: Chain, error: ServiceError) -> None:
    chain.degradations.pass_over(
        "tokenizer",
        error,
        pb.SUBSTITUTE_TOKEN_ESTIMATE,
        "tokens were estimated on the high side: fewer passages may have fitted",
    )


def _no_tokenizer() -> ServiceError:
    return ServiceError(
        Reason.DEPENDENCY_UNAVAILABLE,
        "the tokenizer of the model failed",
        metadata={"dependency": "tokenizer"},
    )
