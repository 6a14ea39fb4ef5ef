"""Where the packaged model is put, and what happens when that goes wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from quintet_generator import gguf_checkpoint
from quintet_generator.model_files import Progress, find_folder, folder_for, prepare_packaged
from quintet_generator.settings import GeneratorSettings


def test_a_preparation_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_packaged(tmp_path, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_two_preparations_at_once_leave_one_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Barrier(2, timeout=10)

    def write(gguf_file: Path, folder: Path, progress: Progress) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")
        both.wait()

    monkeypatch.setattr(gguf_checkpoint, "_write", write)
    source = tmp_path / "Model.gguf"
    source.write_bytes(b"GGUF")
    folder = tmp_path / "share" / "models" / "model"

    def convert(_: int) -> None:
        gguf_checkpoint.convert(source, folder, lambda done, total: None)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(convert, range(2)))
    assert list(folder.parent.iterdir()) == [folder]
    assert (folder / "model.safetensors").read_bytes() == b"weights"


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
