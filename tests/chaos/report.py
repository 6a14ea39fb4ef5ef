"""What a suite required and what it found: build/chaos.json, and a table.

The file is a list of objects with `suite`, `name`, `found`, `required` (empty: nothing)
and `passed`. A suite that runs again replaces its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Check:
    """What was required of a run, and what was found."""

    name: str
    found: float
    required: str = ""
    passed: bool = True


def write(file: Path, suite: str, checks: Sequence[Check]) -> None:
    """Put a suite's checks into the file."""
    others = json.loads(file.read_text()) if file.is_file() else []
    found = [it for it in others if it["suite"] != suite]
    found += [{"suite": suite} | asdict(check) for check in checks]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n")


def table(suite: str, checks: Sequence[Check]) -> Table:
    """Return a terminal's table."""
    shown = Table("", suite, "required", "")
    shown.columns[0].justify = "right"
    for it in checks:
        verdict = ("yes" if it.passed else "NO") if it.required else ""
        style = "red" if not it.passed else ""
        shown.add_row(f"{it.found:,}", it.name, it.required, verdict, style=style)
    return shown
