"""The tokenizers library's own batch call, in one process.

python -m bench.workers.tokenizers_library TOKENIZER_JSON
"""

from __future__ import annotations

import sys
import time

from tokenizers import Tokenizer

from bench.workers.serving import Answer, serve


def open_worker() -> Answer:
    """Load the tokenizer."""
    tokenizer = Tokenizer.from_file(sys.argv[1])
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def texts_per_second(texts: list[str], seconds: float) -> float:
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            done += len([len(it) for it in encodings])
        return done / (time.perf_counter() - began)

    return texts_per_second


if __name__ == "__main__":
    serve(open_worker)
