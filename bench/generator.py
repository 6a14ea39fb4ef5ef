"""The generator: what batching, a process of its own and the wire cost the engine."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc

from bench.corpus import passages
from bench.figures import Figure, alone, compared
from bench.run import Run
from bench.worker import Worker
from quintet.generator.v1 import generator_service_pb2 as pb
from quintet.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from quintet_generator.model_files import find_openvino_folder
from quintet_generator.openvino_backend import batch_config
from quintet_generator.settings import GeneratorSettings

QUESTION = "What do these passages say? Retell all of them in full, one after the other."
PASSAGES = 4
PASSAGE_TOKENS = 128
"""Of MiniLM's: four passages and the template are some 700 tokens of SmolLM2's."""
NEW_TOKENS = 48
TOGETHER = 4
IN_PROCESS = "openvino-genai in process"
OURS = "Generate over gRPC"

Prompt = tuple[str, list[str]]


async def bench(run: Run) -> list[Figure]:
    """Measure seconds of one request, of four at once, and what callers wait for."""
    settings = GeneratorSettings()
    config = batch_config(settings, find_openvino_folder(settings))
    prompts = Prompts(run.size(NEW_TOKENS, 4), run.size(PASSAGE_TOKENS, 16))
    async with (
        run.worker("openvino_generator", json.dumps(asdict(config))) as worker,
        run.service("generator") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub: Any = GeneratorServiceStub(channel)
        service = Service(stub, settings.served_name, prompts.new_tokens)
        await service.seconds([prompts.fresh()])  # loads the model
        one = await _seconds(run, worker, service, prompts, 1)
        four = await _seconds(run, worker, service, prompts, TOGETHER)
        repeated = [await service.first_token_again(prompts.fresh()) for _ in range(run.rounds)]
        pauses = [
            await service.longest_pause([prompts.fresh() for _ in range(settings.slots)])
            for _ in range(run.rounds)
        ]
    # Here each piece of an answer is to be one step, so that steps can be counted.
    async with (
        run.service("generator", QUINTET_GENERATOR_STREAM_SECONDS="0") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        service = Service(GeneratorServiceStub(channel), settings.served_name, prompts.new_tokens)
        await service.seconds([prompts.fresh()])  # loads the model
        freed = [await service.steps_to_take_over(settings.slots) for _ in range(run.rounds)]
    shape = "700-token prompt, 48 new tokens"
    return [
        compared(f"generator: one request, {shape}", "s", one[OURS], IN_PROCESS,
                 one[IN_PROCESS], at_most=1.05),
        compared(f"generator: four at once, {shape}", "s", four[OURS], IN_PROCESS,
                 four[IN_PROCESS], at_most=1.08),
        alone("generator: first token of a repeated prompt", "s", repeated, at_most=0.15),
        # One is under way, one frees the slot, and one reads the next prompt.
        alone("generator: from a caller's leaving to the next one's first token", "steps",
              freed, at_most=3.0),
        alone("generator: longest pause of any of eight at once", "s", pauses, at_most=1.0),
    ]  # fmt: skip


class Prompts:
    """Prompts that have not been used before, so that no cache knows them."""

    def __init__(self, new_tokens: int, passage_tokens: int) -> None:
        self.new_tokens = new_tokens
        self._numbers = itertools.count()
        self._texts = passages(passage_tokens, 400)

    def fresh(self) -> Prompt:
        """Return the next one."""
        number = next(self._numbers)
        first = number * PASSAGES % (len(self._texts) - PASSAGES)
        texts = self._texts[first : first + PASSAGES]
        return QUESTION, [f"Part {number}. {texts[0]}", *texts[1:]]


async def _seconds(
    run: Run, worker: Worker, service: Service, prompts: Prompts, number: int
) -> dict[str, list[float]]:
    """Return each contender's seconds for `number` requests at once."""

    async def in_process() -> float:
        while True:
            told = await worker(
                requests=[prompts.fresh() for _ in range(number)], max_tokens=prompts.new_tokens
            )
            # Answers that end early would make the work less.
            if set(told["tokens"]) == {prompts.new_tokens}:
                return float(told["seconds"])

    async def over_grpc() -> float:
        while True:
            seconds = await service.seconds([prompts.fresh() for _ in range(number)])
            if seconds is not None:
                return seconds

    return await run.interleaved({IN_PROCESS: in_process, OURS: over_grpc})


@dataclass(frozen=True)
class Service:
    """The service as its callers see it."""

    stub: Any
    model: str
    new_tokens: int

    def _request(self, prompt: Prompt, **fields: Any) -> pb.GenerateRequest:
        question, texts = prompt
        return pb.GenerateRequest(
            **{
                "model": self.model,
                "question": question,
                "passages": [pb.Passage(text=text) for text in texts],
                "max_tokens": self.new_tokens,
                **fields,
            }
        )

    async def seconds(self, prompts: Sequence[Prompt]) -> float | None:
        """Return the seconds of all of them at once; None if an answer ended early."""
        began = time.perf_counter()
        answers = await asyncio.gather(
            *(self.stub.Generate(self._request(prompt)) for prompt in prompts)
        )
        seconds = time.perf_counter() - began
        full = all(it.usage.completion_tokens == self.new_tokens for it in answers)
        return seconds if full else None

    async def first_token_again(self, prompt: Prompt) -> float:
        """Return the seconds to the first text of a prompt that was just answered."""
        await self.stub.Generate(self._request(prompt))
        began = time.perf_counter()
        call = self.stub.GenerateStream(self._request(prompt))
        await call.read()
        seconds = time.perf_counter() - began
        call.cancel()
        return seconds

    async def steps_to_take_over(self, slots: int) -> float:
        """Return how many steps after one caller's leaving the next has its first text,
        all slots being taken. Each step is a piece of another caller's answer."""
        endless = {
            "json_schema": '{"type":"array","items":{"type":"integer"},"minItems":100}',
            "max_tokens": 1_000,
        }
        pieces = itertools.count()

        def begun(number: int) -> Any:
            # All different: an answer to equal requests may be made once for all of them.
            prompt = (f"Count to {number}.", ["One, two, three."])
            return self.stub.GenerateStream(self._request(prompt, **endless))

        calls = [begun(number) for number in range(slots)]
        await asyncio.gather(*(call.read() for call in calls))
        waiting = begun(slots)
        first = asyncio.create_task(waiting.read())

        async def count() -> None:
            while True:
                await calls[0].read()
                next(pieces)

        counting = asyncio.create_task(count())
        await asyncio.sleep(0.3)
        assert not first.done(), "somebody left early"
        before = next(pieces)
        calls[1].cancel()
        await first
        steps = next(pieces) - before - 1
        counting.cancel()
        for call in (*calls, waiting):
            call.cancel()
        return float(steps)

    async def longest_pause(self, prompts: Sequence[Prompt]) -> float:
        """Return the longest time between two pieces of any of the answers at once."""

        async def longest(prompt: Prompt) -> float:
            times = [
                time.perf_counter()
                async for event in self.stub.GenerateStream(self._request(prompt))
                if event.HasField("text_delta")
            ]
            return max(_gaps(times), default=0.0)

        return max(await asyncio.gather(*(longest(prompt) for prompt in prompts)))


def _gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]
