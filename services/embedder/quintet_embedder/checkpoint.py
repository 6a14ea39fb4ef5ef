"""A folder with a sentence-transformers model: what its small files say.

Read without torch, so that a backend that needs no torch starts without it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DIGESTED = ("*.safetensors", "*.bin", "*.json", "*/config.json", "*/*.safetensors", "*/*.bin")
_NOT_DIGESTED = frozenset({"data_config.json"})
"""Notes on the training data: they change no vector."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's folder. `max_tokens` includes special tokens; `prompts` maps "query"
    and "passage" to what the model wants before such a text."""

    folder: Path
    max_tokens: int
    normalized: bool
    prompts: dict[str, str]
    padding_id: int

    @property
    def tokenizer_file(self) -> Path:
        """The file of the model's tokenizer."""
        return self.folder / "tokenizer.json"


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a model's folder.

    Raises `FileNotFoundError`, naming the file, when it is no such folder.
    """
    modules = _json(folder / "modules.json")
    sentence_config = _json(folder / "sentence_bert_config.json")
    config_file = folder / "config_sentence_transformers.json"
    config = _json(config_file) if config_file.exists() else {}
    prompts: dict[str, str] = config.get("prompts") or {}
    if "passage" not in prompts and "document" in prompts:
        prompts["passage"] = prompts["document"]
    return Checkpoint(
        folder=folder,
        max_tokens=int(sentence_config["max_seq_length"]),
        normalized=any(module["type"].endswith(".Normalize") for module in modules),
        prompts=prompts,
        padding_id=int(_json(folder / "config.json").get("pad_token_id") or 0),
    )


def revision_of(folder: Path) -> str:
    """Return a digest of the weights, settings and tokenizer, as 16 hex digits.

    Engine and precision are left out: their vectors agree to a cosine of .9999,
    which a test holds, and replicas of one service run on different processors.
    Reads every byte: about 0.1 s for 90 MB.
    """
    digest = hashlib.sha256()
    files = {file for pattern in _DIGESTED for file in folder.glob(pattern)}
    for file in sorted(files):
        if file.name in _NOT_DIGESTED:
            continue
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").digest()
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + content)
    return digest.hexdigest()[:16]


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
