"""The machine and the state of the code that figures were taken with."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimddp",
    "bf16",
)
"""Those of the processor's flags that decide how fast models run."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When, where and with what a bench ran."""

    date: str
    commit: str
    processor: str
    cores: int
    memory_gib: int
    flags: str
    system: str

    @property
    def machine(self) -> str:
        """The machine in one line."""
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gib} GiB, "
            f"flags {self.flags}, {self.system}"
        )


def circumstances() -> Circumstances:
    """Return those of now."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (it.partition(":") for it in lines)}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Circumstances(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_commit(),
        processor=facts.get("model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(memory / 2**30),
        flags=" ".join(flag for flag in _FLAGS if flag in flags) or "unknown",
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    )


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process, with all its threads, has taken so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def _commit() -> str:
    def git(*arguments: str) -> str:
        root = Path(__file__).parents[1]
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "services", "servicekit")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")
