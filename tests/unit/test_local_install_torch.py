"""Which build of torch is installed, and by what; see deploy/local/install_torch.py."""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "local" / "install_torch.py"

CUDA = [
    "filelock",
    'cuda-toolkit[cublas]==13.0.2; platform_system == "Linux"',
    'nvidia-cudnn-cu13==9.15.1.9; platform_system == "Linux"',
    'triton==3.7.0; platform_system == "Linux"',
]
CPU = ["filelock", "sympy>=1.13.3", 'opt-einsum>=3.3; extra == "opt-einsum"']
ELSEWHERE = ["filelock", 'nvidia-cudnn-cu13==9.15.1.9; platform_machine == "another"']


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_torch", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("version", "requirements", "expected"),
    [
        ("2.13.0", CUDA, False),
        ("2.13.0+cpu", CPU, True),
        ("2.13.0+cu130", CPU, False),
        ("2.13.0", CPU, True),
        ("2.13.0", ELSEWHERE, True),
        (
            "2.13.0",
            [f'nvidia-x; sys_platform == "none" or platform_machine == "{platform.machine()}"'],
            False,
        ),
    ],
)
def test_a_cpu_build_is_one_that_brings_no_cuda_on_this_machine(
    script: ModuleType, version: str, requirements: list[str], expected: bool
) -> None:
    assert script.is_cpu_build(version, requirements) is expected


def test_an_installed_torch_of_the_wanted_build_is_left_alone(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        script.metadata,
        "distribution",
        lambda name: SimpleNamespace(version="2.13.0+cpu", requires=CPU),
    )
    monkeypatch.setattr(script.subprocess, "run", lambda *_, **__: pytest.fail("nothing to do"))
    script.main("2.13.0", "cpu")
    assert not script.is_installed("2.12.0", "cpu")
    assert not script.is_installed("2.13.0", "cu130")
    assert not script.is_installed("2.13.0", "auto")


Runs = list[Sequence[str]]


@pytest.fixture
def run_with(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, list[str] | None], Runs]:
    """Return a function that runs the script with a report of pip, and tells its commands."""

    def run(backend: str, requirements: list[str] | None) -> Runs:
        commands: Runs = []

        def answer(command: Sequence[str], **_: Any) -> Any:
            commands.append(command)
            if "--dry-run" not in command:
                return None
            if requirements is None:
                return subprocess.CompletedProcess(command, 1, "")
            found = {"version": "2.13.0", "requires_dist": requirements}
            return subprocess.CompletedProcess(
                command, 0, json.dumps({"install": [{"metadata": found}]})
            )

        monkeypatch.setattr(script, "is_installed", lambda *_: False)
        monkeypatch.setattr(script.subprocess, "run", answer)
        script.main("2.13.0", backend)
        return commands

    return run


def test_pip_installs_where_it_would_take_a_cpu_build(
    run_with: Callable[[str, list[str] | None], Runs],
) -> None:
    asked, installed = run_with("cpu", CPU)
    assert "--dry-run" in asked
    assert installed[1:4] == ["-m", "pip", "install"] and installed[-1] == "torch==2.13.0"


@pytest.mark.parametrize("requirements", [CUDA, None])
def test_uv_installs_where_pip_would_take_cuda_or_finds_nothing(
    run_with: Callable[[str, list[str] | None], Runs], requirements: list[str] | None
) -> None:
    _, uv, installed = run_with("cpu", requirements)
    assert uv[-1] == "uv"
    assert installed[1:5] == ["-m", "uv", "pip", "install"]
    assert "--torch-backend=cpu" in installed and installed[-1] == "torch==2.13.0"


def test_another_backend_goes_to_uv_as_it_is(
    run_with: Callable[[str, list[str] | None], Runs],
) -> None:
    _, installed = run_with("cu130", CPU)
    assert "--torch-backend=cu130" in installed
