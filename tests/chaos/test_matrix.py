"""Some cells of the matrix that `make chaos` does whole; see `chaos.matrix`."""

from __future__ import annotations

from pathlib import Path

from chaos.matrix import CELLS, Cell, checks, run
from chaos.measured import Measured

CHOSEN: list[Cell] = [
    ("postgresql", "frozen"),
    ("valkey", "slow drip"),
    ("embedder", "slow by 500 ms"),
    ("retriever", "black-holed"),
    ("generator", "resets"),
    ("gateway", "refusing"),
]
SECONDS = 2.0
SEED = 2


async def test_whatever_is_broken_each_call_keeps_its_deadline_and_all_is_well_soon_after(
    tmp_path: Path,
) -> None:
    assert set(CHOSEN) <= set(CELLS)
    found: list[Measured] = []
    impossible = await run(tmp_path, CHOSEN, SEED, found.append, SECONDS)
    assert impossible == []
    assert [check for check in checks(found, impossible) if not check.passed] == []
