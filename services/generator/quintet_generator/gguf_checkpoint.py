"""Turns a Llama model in llama.cpp's GGUF format into a transformers folder.

transformers can read GGUF itself, but takes some twenty seconds for it at every
start. Here it is done once, and the service then loads plain safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from quintet_generator.model_files import Progress

_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHER_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_CONTROL_TOKEN = 3
"""GGUF's token type for tokens with a meaning to the model, such as a turn's end."""


def convert(gguf_file: Path, folder: Path, progress: Progress) -> None:
    """Write the transformers form of `gguf_file` into `folder`, weights in bfloat16."""
    reader = GGUFReader(gguf_file)
    config = _write_description(reader, folder)
    weights: dict[str, torch.Tensor] = {}
    for done, tensor in enumerate(reader.tensors, start=1):
        values = dequantize(tensor.data, tensor.tensor_type)
        name, values = _as_transformers(tensor.name, values, config)
        # Copied: an unquantised tensor is a read-only view into the file.
        weights[name] = torch.from_numpy(values.copy()).to(torch.bfloat16)
        progress(done, len(reader.tensors))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_description(gguf_file: Path, folder: Path) -> None:
    """Write the model's configuration and tokenizer into `folder`: all but weights."""
    _write_description(GGUFReader(gguf_file), folder)


def _write_description(reader: GGUFReader, folder: Path) -> dict[str, Any]:
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields["general.architecture"] != "llama" or fields["tokenizer.ggml.pre"] != "smollm":
        raise ValueError("the packaged model is not of the SmolLM family")
    config = _config(fields, tied=all(tensor.name != "output.weight" for tensor in reader.tensors))
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(fields))
    _tokenizer(fields).save(str(folder / "tokenizer.json"))
    return config


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


def _config(fields: Mapping[str, Any], *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "hidden_act": "silu",
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "dtype": "bfloat16",
        "max_position_embeddings": fields["llama.context_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.rope.dimension_count"],
        "rope_theta": fields["llama.rope.freq_base"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "vocab_size": fields["llama.vocab_size"],
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _tokenizer_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "chat_template": fields["tokenizer.chat_template"],
    }


def _tokenizer(fields: Mapping[str, Any]) -> Tokenizer:
    """Byte-level BPE with each digit a token of its own: what llama.cpp calls "smollm"."""
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    return tokenizer


def _as_transformers(
    name: str, values: npt.NDArray[np.float32], config: Mapping[str, Any]
) -> tuple[str, npt.NDArray[np.float32]]:
    """Return a tensor's name and values as transformers' Llama wants them."""
    stem = name.removesuffix(".weight")
    if not stem.startswith("blk."):
        return f"{_OTHER_TENSORS[stem]}.weight", values
    _, layer, part = stem.split(".")
    if part == "attn_q":
        values = _unpermuted(values, config["num_attention_heads"])
    elif part == "attn_k":
        values = _unpermuted(values, config["num_key_value_heads"])
    return f"model.layers.{layer}.{_LAYER_TENSORS[part]}.weight", values


def _unpermuted(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Undo llama.cpp's order of query and key rows.

    Its rotary embedding turns neighbouring rows (0, 1), (2, 3), ...; transformers
    turns row i of a head with row i + half. `convert_hf_to_gguf.py` of llama.cpp
    permutes; this is the inverse. `values` is (heads * head_dim, hidden).
    """
    half = values.shape[0] // heads // 2
    pairs = values.reshape(heads, half, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
