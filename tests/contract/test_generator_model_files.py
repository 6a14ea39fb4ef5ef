"""Where the packaged model is put, and what happens when that goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from quintet_generator.model_files import (
    OPENVINO,
    TRANSFORMERS,
    Recipe,
    find_folder,
    find_openvino_folder,
    folder_for,
    prepare_packaged,
)
from quintet_generator.settings import GeneratorSettings


@pytest.mark.parametrize("recipe", [OPENVINO, TRANSFORMERS])
def test_a_preparation_that_is_broken_off_leaves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_packaged(tmp_path, recipe, interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", [OPENVINO, TRANSFORMERS])
def test_a_prepared_folder_begins_with_the_models_name(recipe: Recipe) -> None:
    settings = GeneratorSettings()
    folder = prepare_packaged(settings.model_dir, recipe)
    assert folder.name.split(".")[0] == settings.served_name


def test_another_file_gets_another_folder(tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"one")
    first = folder_for(source, tmp_path, OPENVINO)
    source.write_bytes(b"two")
    assert folder_for(source, tmp_path, OPENVINO) != first


def test_each_form_has_a_folder_of_its_own(tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"one")
    assert folder_for(source, tmp_path, OPENVINO) != folder_for(source, tmp_path, TRANSFORMERS)


def test_a_folder_without_the_openvino_form_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="optimum-cli export openvino"):
        find_openvino_folder(GeneratorSettings(model=str(tmp_path)))


def test_a_model_that_is_not_there_is_not_downloaded_unasked() -> None:
    with pytest.raises(FileNotFoundError, match="QUINTET_GENERATOR_ALLOW_DOWNLOADS"):
        find_folder(GeneratorSettings(model="nobody/nothing"))
