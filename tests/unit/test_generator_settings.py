"""The generator's settings."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from quintet_generator.settings import GeneratorSettings


@pytest.mark.parametrize(
    "value",
    ["transformers,extractive", " transformers , extractive, ", '["transformers","extractive"]'],
)
def test_backends_come_as_a_json_list_or_with_commas(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUINTET_GENERATOR_BACKENDS", value)
    assert GeneratorSettings().backends == ("transformers", "extractive")


@pytest.mark.parametrize("value", ["", "[]", "gpt", "extractive,extractive", "[1"])
def test_a_list_that_names_no_backend_or_one_twice_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUINTET_GENERATOR_BACKENDS", value)
    with pytest.raises(ValidationError):
        GeneratorSettings()


@pytest.mark.parametrize(
    ("model", "model_name", "expected"),
    [
        ("", "", "smollm2-135m-instruct"),
        ("/models/Qwen2.5-0.5B", "", "qwen2.5-0.5b"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "", "qwen2.5-0.5b-instruct"),
        ("/models/x", "house-model", "house-model"),
    ],
)
def test_the_served_name_follows_the_model(model: str, model_name: str, expected: str) -> None:
    assert GeneratorSettings(model=model, model_name=model_name).served_name == expected


def test_two_local_backends_have_two_names() -> None:
    settings = GeneratorSettings(backends=("openvino", "transformers"))
    assert settings.transformers_name == f"{settings.served_name}-transformers"
    assert GeneratorSettings(backends=("transformers",)).transformers_name == settings.served_name


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="same name"):
        GeneratorSettings(
            backends=("openvino", "openai"),
            openai_base_url="http://127.0.0.1:8000/v1",
            openai_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        )


def test_the_openai_backend_is_not_taken_without_its_address_and_model() -> None:
    with pytest.raises(ValidationError, match="OPENAI_BASE_URL"):
        GeneratorSettings(backends=("openai",))


def test_the_key_does_not_show() -> None:
    assert "hush" not in repr(GeneratorSettings(openai_api_key="hush"))
