"""What the matrix measured, cell by cell, and the file that keeps it between runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = Path(__file__).parent.parent.parent / "build" / "what-is-down.json"


@dataclass
class Row:
    """What callers saw of calls of one kind while something was broken; `outcomes` with how
    often each was seen, times in milliseconds."""

    outcomes: dict[str, int]
    median_ms: float
    most_ms: float


@dataclass
class Measured:
    """What a cell told; `rows` by RPC and kind, `recovery` by RPC, in seconds, of those that
    recovered. `late_ms` is the most that a call outlived its deadline by, `late_raw_ms` the same
    with what the caller's own process was late; `unforeseen` are calls that ended as INTERNAL
    or UNKNOWN."""

    part: str
    fault: str
    rows: dict[str, Row] = field(default_factory=dict)
    recovery: dict[str, float] = field(default_factory=dict)
    late_ms: float = 0.0
    late_raw_ms: float = 0.0
    calls: int = 0
    unforeseen: int = 0
    wrong: list[str] = field(default_factory=list)


def read(file: Path = FILE) -> list[Measured]:
    """Return what has been measured so far."""
    if not file.is_file():
        return []
    return [
        Measured(**it | {"rows": {name: Row(**row) for name, row in it["rows"].items()}})
        for it in json.loads(file.read_text())
    ]


def merge(found: Iterable[Measured], file: Path = FILE) -> Sequence[Measured]:
    """Put cells into the file, in place of what was measured of them before; return all."""
    cells = {(it.part, it.fault): it for it in [*read(file), *found]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(it) for it in cells.values()], indent=1) + "\n")
    return list(cells.values())
