"""What calls took, as their responses tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quintet.embedder.v1 import embedder_service_pb2 as embedder_pb
from quintet.generator.v1 import generator_service_pb2 as generator_pb
from quintet_servicekit.token_estimate import estimate_tokens


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of one call, those that a cache served included. `input` does not include
    `cached_input`, which the server that runs the model had cached."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    embedding: int = 0
    estimated: bool = False


NOTHING = Spent()


def spent_by(response: Any) -> Spent:
    """Return the tokens of a unary call, by its response."""
    if isinstance(response, embedder_pb.EmbedResponse):
        return Spent(embedding=sum(it.tokens for it in response.embeddings))
    if isinstance(response, embedder_pb.RerankResponse):
        return Spent(embedding=response.tokens)
    return NOTHING


class Generation:
    """What a stream of the generator has taken so far."""

    def __init__(self, request: generator_pb.GenerateRequest) -> None:
        self.completed: generator_pb.Completed | None = None
        self._request = request
        self._text: list[str] = []

    def note(self, response: generator_pb.GenerateStreamResponse) -> None:
        """Take in the next event."""
        if response.HasField("completed"):
            self.completed = response.completed
        else:
            self._text.append(response.text_delta.text)

    def spent(self, *, failed: bool) -> Spent:
        """Return the tokens of a stream that has ended, or that its caller has left.

        The generator counts those of a whole one. Of another one they are estimated; one
        that `failed` before its first event took none.
        """
        if self.completed is not None:
            usage = self.completed.usage
            cached = min(usage.cached_prompt_tokens, usage.prompt_tokens)
            return Spent(
                input=usage.prompt_tokens - cached,
                cached_input=cached,
                output=usage.completion_tokens,
                estimated=usage.estimated,
            )
        if failed and not self._text:
            return NOTHING
        read = [self._request.question]
        read += (part for it in self._request.passages for part in (it.title, it.text))
        return Spent(
            input=estimate_tokens(" ".join(read)),
            output=estimate_tokens("".join(self._text)),
            estimated=True,
        )
