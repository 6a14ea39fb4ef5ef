"""Converts the models for OpenVINO: `python -m quintet_embedder.prepare`.

Run once after an install, so that no start has to. Nothing to do when it is there.
A process of its own, because it needs torch and the service does not.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from pathlib import Path

from quintet_embedder.checkpoint import revision_of
from quintet_embedder.openvino_backend import MODEL_FILE
from quintet_embedder.settings import Settings, model_folder, one_model_each
from quintet_servicekit.folders import made_whole

RECIPE = 2
"""Raise it when models are converted in another way."""


def converted_folder(settings: Settings) -> Path:
    """Return where the settings' model is, or will be, in OpenVINO's form."""
    revision = revision_of(model_folder(settings))
    name = settings.model.replace("/", "--")
    return settings.prepared_dir / f"{name}-{revision}-openvino-r{RECIPE}"


def convert(source: Path, target: Path) -> None:
    """Write the sentence-transformers model in `source` to `target`, in float32.

    Its inputs are "input_ids" and "attention_mask", int64 [texts, tokens]; its
    outputs are the pooled vectors, float32 [texts, dimension], and the tokens' last
    hidden states, float32 [texts, tokens, dimension].
    """
    import openvino as ov
    import torch
    from sentence_transformers import SentenceTransformer

    class Whole(torch.nn.Module):
        def __init__(self, model: SentenceTransformer) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
            return outputs["sentence_embedding"], outputs["token_embeddings"]

    model = SentenceTransformer(str(source), device="cpu", local_files_only=True).eval()
    example = torch.ones(2, 8, dtype=torch.long)
    with warnings.catch_warnings():
        # The tracer warns of every branch; the fidelity test is what counts.
        warnings.simplefilter("ignore")
        converted = ov.convert_model(
            Whole(model), example_input={"input_ids": example, "attention_mask": example}
        )
    ov.save_model(converted, target / MODEL_FILE, compress_to_fp16=False)


def main() -> int:
    """Convert the settings' models where that has not been done; return the exit status."""
    for settings in one_model_each(Settings()):
        folder = converted_folder(settings)
        made_whole(folder, partial(convert, model_folder(settings)))
        print(f"The embedding model is in {folder}")  # noqa: T201 - a command's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
