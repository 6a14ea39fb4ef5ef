"""The decode loop, on a tiny model with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import pytest
import torch
from prometheus_client import REGISTRY
from transformers import LlamaConfig, LlamaForCausalLM

from quintet_generator.decoding import PREFILL_TOKENS, Decoder, Sampling

GREEDY = Sampling(temperature=0, seed=0)
PROMPT = [5, 17, 80, 3, 9]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4 * PREFILL_TOKENS,
    )
    return LlamaForCausalLM(config).eval()  # type: ignore[no-any-return, no-untyped-call]


def decoded(
    decoder: Decoder, prompt: Sequence[int] = PROMPT, number: int = 12, how: Sampling = GREEDY
) -> list[int]:
    return [it.id for it in decoder.tokens(prompt, number, how, lambda: True)]


def steps(name: str, phase: str) -> float:
    labels = {"model": name, "phase": phase}
    return REGISTRY.get_sample_value("quintet_generator_decode_steps_total", labels) or 0


def test_the_likeliest_tokens_are_those_of_the_library(model: LlamaForCausalLM) -> None:
    ids = torch.tensor([PROMPT])
    expected = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=None)  # type: ignore[misc]
    assert decoded(Decoder("like", model, frozenset())) == expected[0, len(PROMPT) :].tolist()


def test_a_long_prompt_is_read_in_steps_without_changing_the_answer(
    model: LlamaForCausalLM,
) -> None:
    prompt = [it % 97 for it in range(2 * PREFILL_TOKENS + 5)]
    with torch.inference_mode():
        expected = int(model(torch.tensor([prompt])).logits[0, -1].argmax())
    assert decoded(Decoder("long", model, frozenset()), prompt, 1) == [expected]
    assert steps("long", "prefill") == 3
    assert steps("long", "decode") == 0


def test_an_end_token_ends_the_answer_and_is_not_part_of_it(model: LlamaForCausalLM) -> None:
    tokens = decoded(Decoder("free", model, frozenset()))
    cut = Decoder("cut", model, frozenset({tokens[4]}))
    assert decoded(cut) == tokens[: tokens.index(tokens[4])]


def test_no_step_begins_after_the_caller_left(model: LlamaForCausalLM) -> None:
    wanted = True
    stream = Decoder("left", model, frozenset()).tokens(PROMPT, 50, GREEDY, lambda: wanted)
    with closing(stream) as tokens:  # type: ignore[type-var]
        for _ in range(3):
            next(tokens)
        before = steps("left", "decode")
        wanted = False
        assert list(tokens) == []
    assert steps("left", "decode") == before


def test_a_caller_who_left_before_the_start_costs_nothing(model: LlamaForCausalLM) -> None:
    decoder = Decoder("gone", model, frozenset())
    assert list(decoder.tokens(PROMPT, 5, GREEDY, lambda: False)) == []
    assert steps("gone", "prefill") == 0


def test_a_seed_repeats_the_choice_and_another_changes_it(model: LlamaForCausalLM) -> None:
    decoder = Decoder("seed", model, frozenset())
    largest = 2**64 - 1
    one, same, other = (decoded(decoder, how=Sampling(1.5, it)) for it in (largest, largest, 7))
    assert one == same != other


def test_the_least_temperature_is_as_good_as_none(model: LlamaForCausalLM) -> None:
    decoder = Decoder("cold", model, frozenset())
    assert decoded(decoder, how=Sampling(1e-45, 1)) == decoded(decoder)
