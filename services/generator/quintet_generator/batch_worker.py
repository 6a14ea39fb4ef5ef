"""The batching process: steps all running requests of a model together.

    python -m quintet_generator.batch_worker CONFIG    (see `BatchConfig`, as JSON)

It has a process of its own because openvino-genai holds Python's interpreter lock
for a whole step, up to half a second, in which a server in the same process could
answer nobody. Commands come on standard input; the first line of standard output
says that the model is loaded, each further one what some steps gave. It ends when its
input does, so it never outlives its service.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from quintet_generator.batch_messages import (
    CONFIRMED,
    BatchConfig,
    Cancel,
    Ending,
    Progress,
    Start,
    command,
    line,
    told_line,
)
from quintet_generator.batch_outbox import Outbox

_BLOCK_TOKENS = 32
"""Tokens of a KV cache block on processors."""
_READ_BYTES = 1 << 20


class Commands:
    """The lines of a file descriptor, as they come."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def take(self, *, wait: bool) -> Iterator[Start | Cancel]:
        """Yield the commands that are there; with `wait`, wait for one.

        Raises EOFError when the other side is gone.
        """
        while select.select([self._descriptor], [], [], None if wait else 0)[0]:
            data = os.read(self._descriptor, _READ_BYTES)
            if not data:
                raise EOFError
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from map(command, lines)
            wait = wait and not lines


class Batch:
    """The model and the requests that run in it."""

    def __init__(self, config: BatchConfig) -> None:
        scheduling = genai.SchedulerConfig()
        scheduling.num_kv_blocks = -(-config.cache_tokens // _BLOCK_TOKENS)
        scheduling.max_num_batched_tokens = config.step_tokens
        scheduling.max_num_seqs = config.slots
        scheduling.enable_prefix_caching = True
        self._pipeline = genai.ContinuousBatchingPipeline(
            config.folder,
            scheduling,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": config.threads,
                "INFERENCE_PRECISION_HINT": config.precision,
                "KV_CACHE_PRECISION": config.cache_precision,
            },
        )
        self._end_tokens = set(config.end_tokens)
        self._running: dict[int, Any] = {}
        self._has_cancelled = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to step."""
        return not self._running and not self._has_cancelled

    def obey(self, command: Start | Cancel) -> None:
        """Begin or end a request; both take effect in the next step."""
        match command:
            case Start():
                prompt = openvino.Tensor(np.array([command.prompt], dtype=np.int64))
                self._running[command.id] = self._pipeline.add_request(
                    command.id, prompt, self._generation(command)
                )
            case Cancel() if command.id in self._running:
                self._running.pop(command.id).cancel()
                self._has_cancelled = True  # the engine drops it in its next step

    def step(self) -> list[Progress]:
        """Take every request one step on, and tell what it gave."""
        self._pipeline.step()
        self._has_cancelled = False
        steps: list[Progress] = []
        for number, handle in list(self._running.items()):
            tokens: list[int] = []
            logprobs: list[float] = []
            while handle.can_read():
                for output in handle.read().values():
                    tokens += output.generated_ids
                    logprobs += output.generated_log_probs
            if ending := _ending(handle.get_status()):
                del self._running[number]
            if tokens or ending:
                steps.append(Progress(number, tokens, logprobs, ending))
        return steps

    def _generation(self, start: Start) -> Any:
        generation = genai.GenerationConfig()
        generation.max_new_tokens = start.max_tokens
        generation.stop_token_ids = self._end_tokens
        generation.logprobs = int(start.logprobs)
        if start.temperature > 0:
            generation.do_sample = True
            generation.temperature = start.temperature
            # Its generator takes 32 bits.
            generation.rng_seed = (start.seed ^ start.seed >> 32) & 0xFFFF_FFFF
        if start.json_schema:
            structure = genai.StructuredOutputConfig()
            structure.json_schema = start.json_schema
            generation.structured_output_config = structure
        return generation


def _ending(status: Any) -> Ending | None:
    if status == genai.GenerationStatus.RUNNING:
        return None
    return "no_room" if status == genai.GenerationStatus.IGNORED else "done"


def main() -> int:
    """Serve until standard input ends; return the exit status."""
    # Ctrl-C reaches the whole group of processes; the service decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries that print would garble the answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    config = BatchConfig(**json.loads(sys.argv[1]))
    batch, outbox = Batch(config), Outbox(config.stream_seconds)
    answers.write(line("ready"))
    commands = Commands(0)
    try:
        while True:
            for it in commands.take(wait=batch.is_idle):
                batch.obey(it)
                if isinstance(it, Cancel):
                    outbox.drop(it.id)
                    answers.write(told_line(CONFIRMED))
            if not batch.is_idle:
                outbox.add(batch.step())
            if told := outbox.take(time.monotonic()):
                answers.write(told_line(told))
    except (EOFError, BrokenPipeError):
        return 0


if __name__ == "__main__":
    sys.exit(main())
