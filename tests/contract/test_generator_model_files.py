"""Where the packaged model is put, and what happens when that goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from quintet_generator.model_files import find_folder, folder_for, prepare_packaged
from quintet_generator.settings import GeneratorSettings


def test_a_preparation_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_packaged(tmp_path, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_prepared_folder_begins_with_the_models_name() -> None:
    settings = GeneratorSettings()
    assert prepare_packaged(settings.model_dir).name.split(".")[0] == settings.served_name


def test_another_file_gets_another_folder(tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"one")
    first = folder_for(source, tmp_path)
    source.write_bytes(b"two")
    assert folder_for(source, tmp_path) != first


def test_a_model_that_is_not_there_is_not_downloaded_unasked() -> None:
    with pytest.raises(FileNotFoundError, match="QUINTET_GENERATOR_ALLOW_DOWNLOADS"):
        find_folder(GeneratorSettings(model="nobody/nothing"))
