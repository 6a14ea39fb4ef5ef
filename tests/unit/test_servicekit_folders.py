"""Folders that are there whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from quintet_servicekit.folders import made_whole, passing


def test_two_who_make_a_folder_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    both = Barrier(2, timeout=10)

    def write(draft: Path) -> None:
        (draft / "weights").write_bytes(b"all of them")
        both.wait()

    folder = tmp_path / "share" / "model"
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: made_whole(folder, write), range(2)))
    assert made == [folder, folder]
    assert list(folder.parent.iterdir()) == [folder]
    assert (folder / "weights").read_bytes() == b"all of them"


def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def write(draft: Path) -> None:
        (draft / "half").touch()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        made_whole(tmp_path / "model", write)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    def write(draft: Path) -> None:
        raise AssertionError

    assert made_whole(tmp_path, write) == tmp_path


def test_a_passing_folder_goes_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        "import os, signal, tempfile; from quintet_servicekit.folders import passing\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "with passing('it-'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / "other").mkdir()
    with passing("it-") as one, passing("it-") as another:
        assert {it.name for it in tmp_path.iterdir()} == {one.name, another.name, "other"}
        assert left not in (one, another)
        assert one.stat().st_mode & 0o777 == 0o700
    assert [it.name for it in tmp_path.iterdir()] == ["other"]
