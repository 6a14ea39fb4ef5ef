"""The generator's engine in one process: no service, no queue, no wire.

    python -m bench.workers.openvino_generator CONFIG

CONFIG is a `BatchConfig` as JSON. It renders prompts and decodes them together, as the
service's two processes do, and turns the tokens into text at the end.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from bench.workers.serving import Answer, serve
from quintet_generator.batch_messages import BatchConfig, Start
from quintet_generator.batch_worker import Batch
from quintet_generator.chat_tokenizer import ChatTokenizer
from quintet_generator.models import Passage
from quintet_generator.prompts import Templates


def open_worker() -> Answer:
    """Load the model."""
    config = BatchConfig(**json.loads(sys.argv[1]))
    batch, tokenizer = Batch(config), ChatTokenizer(Path(config.folder))
    template = Templates.packaged().get("answer")
    numbers = itertools.count()

    def generate(requests: list[Any], max_tokens: int) -> dict[str, Any]:
        """Return the seconds of all [question, passages] together, of the first token of
        any, and each one's number of tokens."""
        began, first = time.perf_counter(), 0.0
        answers: dict[int, list[int]] = {}
        for question, passages in requests:
            number = next(numbers)
            prompt = tokenizer.encode(
                template.render(question, [Passage("", text) for text in passages])
            )
            answers[number] = []
            batch.obey(Start(number, prompt, max_tokens, 0, 0, "", False))
        while not batch.is_idle:
            for step in batch.step():
                first = first or time.perf_counter() - began
                answers[step.id] += [it for it in step.tokens if it not in config.end_tokens]
        for tokens in answers.values():
            tokenizer.decode(tokens)
        return {
            "seconds": time.perf_counter() - began,
            "first": first,
            "tokens": [len(it) for it in answers.values()],
        }

    return generate


if __name__ == "__main__":
    serve(open_worker)
