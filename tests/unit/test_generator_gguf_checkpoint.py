"""Turning GGUF into a transformers folder: what can go wrong without a word."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from quintet_generator.gguf_checkpoint import _as_transformers, _tokenizer

HEADS, KEY_HEADS, HEAD_DIM, HIDDEN = 4, 2, 8, 6
CONFIG = {"num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS}


def permuted(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """As llama.cpp's convert_hf_to_gguf.py does."""
    return (
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        .swapaxes(1, 2)
        .reshape(values.shape)
    )


@pytest.mark.parametrize(
    ("part", "heads", "name"), [("attn_q", HEADS, "q_proj"), ("attn_k", KEY_HEADS, "k_proj")]
)
def test_queries_and_keys_get_their_order_back(part: str, heads: int, name: str) -> None:
    values = np.arange(heads * HEAD_DIM * HIDDEN, dtype=np.float32).reshape(-1, HIDDEN)
    result = _as_transformers(f"blk.3.{part}.weight", permuted(values, heads), CONFIG)
    assert result[0] == f"model.layers.3.self_attn.{name}.weight"
    np.testing.assert_array_equal(result[1], values)


@pytest.mark.parametrize(
    ("gguf_name", "name"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"),
        ("blk.11.ffn_down.weight", "model.layers.11.mlp.down_proj.weight"),
        ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
    ],
)
def test_other_tensors_keep_their_values(gguf_name: str, name: str) -> None:
    values = np.ones((4, 4), np.float32)
    result = _as_transformers(gguf_name, values, CONFIG)
    assert result[0] == name
    assert result[1] is values


def test_digits_are_tokens_of_their_own_and_control_tokens_stay_whole() -> None:
    characters = [*"019xĠ"]
    tokens = ["<|end|>", *characters, "01", "xx"]
    tokenizer = _tokenizer(
        {
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
            "tokenizer.ggml.merges": ["0 1", "x x"],
        }
    )
    assert tokenizer.encode("xx 019<|end|>").tokens == ["xx", "Ġ", "0", "1", "9", "<|end|>"]
    assert tokenizer.decode([tokens.index("xx"), tokens.index("Ġ"), tokens.index("9")]) == "xx 9"
