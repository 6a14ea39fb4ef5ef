"""Scores passages with a cross-encoder, a model that reads query and passage together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class UntrainedHeadError(ValueError):
    """The checkpoint has no weights for the layer that scores."""


class CrossEncoderScorer:
    """A cross-encoder in float32 on the CPU. Its methods block, and are called from
    one thread, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._folder = folder

    def open(self) -> None:
        """Load the model.

        Raises `UntrainedHeadError` for a checkpoint without a trained head: loading
        libraries fill the gap with random numbers, and the scores would be noise.
        """
        model, report = AutoModelForSequenceClassification.from_pretrained(
            self._folder, local_files_only=True, output_loading_info=True
        )
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"]))
            raise UntrainedHeadError(f"{self._folder} has no trained weights for {missing}")
        self._model = model.eval()
        self._tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)

    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """Return the score of each passage, higher for a better one."""
        pairs = self._tokenizer(
            [query] * len(passages),
            list(passages),
            padding=True,
            truncation="only_second",
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = self._model(**pairs).logits
        # Two classes: the second is "relevant". One: the score itself.
        scores: list[float] = logits[:, -1].tolist()
        return scores
