"""Runs a model on torch through sentence-transformers: the reference, and the GPU's way."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from quintet_embedder.models import Purpose, TextStates, TokenIds, Vectors
from quintet_embedder.padding import padded

_NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags of /proc/cpuinfo, x86 and Arm, that promise bfloat16 arithmetic. Without
them bfloat16 is emulated, and slower than float32."""


class TorchLane:
    """One model in one precision on one device, for all texts."""

    purposes: tuple[Purpose, ...] = (Purpose.QUERY, Purpose.RERANK, Purpose.PASSAGE)

    def __init__(
        self, folder: Path, *, device: str, dtype: str, threads: int, padding_id: int
    ) -> None:
        self.name = ""
        self._folder = folder
        self._device = device
        self._dtype = dtype
        self._threads = threads
        self._padding_id = padding_id

    def open(self) -> None:
        """Load the model; blocking."""
        torch.set_num_threads(self._threads)
        dtype = self._dtype
        if dtype == "auto":
            dtype = "bfloat16" if _computes_bfloat16(self._device) else "float32"
        self.name = f"torch-{importlib.metadata.version('torch')}/{dtype}"
        self._model = SentenceTransformer(
            str(self._folder),
            device=self._device,
            local_files_only=True,
            model_kwargs={"torch_dtype": getattr(torch, dtype)},
        ).eval()

    def encode(self, ids: Sequence[TokenIds]) -> Vectors:
        """Return the vectors of the texts, float32 [texts, dimension]."""
        return _as_float32(self._outputs(ids)["sentence_embedding"])

    def encode_states(self, ids: Sequence[TokenIds]) -> list[TextStates]:
        """Return the vector of each text and the states of its tokens."""
        outputs = self._outputs(ids)
        vectors = _as_float32(outputs["sentence_embedding"])
        states = _as_float32(outputs["token_embeddings"])
        return [
            TextStates(vector, tokens[: len(each)])
            for vector, tokens, each in zip(vectors, states, ids, strict=True)
        ]

    def _outputs(self, ids: Sequence[TokenIds]) -> dict[str, torch.Tensor]:
        rectangle, mask = padded(ids, self._padding_id)
        features = {
            "input_ids": torch.from_numpy(rectangle).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }
        with torch.inference_mode():
            outputs: dict[str, torch.Tensor] = self._model(features)
        return outputs


def _as_float32(tensor: torch.Tensor) -> Vectors:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)


def _computes_bfloat16(device: str) -> bool:
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    cpuinfo = Path("/proc/cpuinfo")
    if device != "cpu" or not cpuinfo.exists():
        return False
    return not _NATIVE_BFLOAT16.isdisjoint(cpuinfo.read_text().split())
