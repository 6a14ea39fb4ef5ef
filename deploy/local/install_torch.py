"""Installs torch into the environment of the Python that runs it, as a CPU build
unless another is asked for. Uses nothing but the standard library and pip.

    python install_torch.py VERSION [cpu|auto|cu130|…]

What pip would take differs: an index or a folder of wheels that the machine is
configured for may offer a CPU build, and the public one offers, for most
machines, gigabytes of CUDA. So pip is asked first; where it would take CUDA, uv
installs instead, because it knows torch's own index of each backend.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def is_cpu_build(version: str, requirements: Iterable[str]) -> bool:
    """Tell whether a build of torch brings no CUDA on this machine.

    `requirements` are its metadata's: CUDA comes as packages named nvidia-… or
    cuda-…, some of them only for one processor.
    """
    _, _, local = version.partition("+")
    if local:
        return local == "cpu"
    return not any(
        re.match(r"(nvidia|cuda)-", each.name, re.IGNORECASE)
        and (each.marker is None or each.marker.evaluate({"extra": ""}))
        for each in map(Requirement, requirements)
    )


def is_installed(version: str, backend: str) -> bool:
    """Tell whether torch `version` is here, built for `backend`."""
    try:
        torch = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return False
    if torch.version.partition("+")[0] != version:
        return False
    if backend == "cpu":
        return is_cpu_build(torch.version, torch.requires or [])
    return torch.version.partition("+")[2] == backend


def pip_takes_cpu_build(report: str) -> bool:
    """Tell from pip's installation report whether it would take a CPU build."""
    [chosen] = json.loads(report)["install"]
    found = chosen["metadata"]
    return is_cpu_build(found["version"], found.get("requires_dist", []))


def main(version: str, backend: str = "cpu") -> None:
    """Install torch `version` for `backend`, or leave it where it is installed."""
    if is_installed(version, backend):
        return
    pip = [sys.executable, "-m", "pip", "install", "-c", str(CONSTRAINTS)]
    wanted = f"torch=={version}"
    if backend == "cpu":
        asked = [*pip, "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", "--quiet"]
        answer = subprocess.run([*asked, wanted], stdout=subprocess.PIPE, text=True, check=False)
        if answer.returncode == 0 and pip_takes_cpu_build(answer.stdout):
            subprocess.run([*pip, wanted], check=True)
            return
    subprocess.run([*pip, "--quiet", "uv"], check=True)
    uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
    subprocess.run([*uv, "-c", str(CONSTRAINTS), f"--torch-backend={backend}", wanted], check=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"torch could not be installed: {' '.join(error.cmd)} failed, as said above.\n"
            "Where torch's own index cannot be reached, show pip a folder or an index that has\n"
            "the build you want, with PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL, and try again."
        )
