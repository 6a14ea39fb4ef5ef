"""Real questions and judgements, which are no part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

EVALUATION_DATA = os.environ.get("QUINTET_EVAL_DATA", "")

needs_evaluation_data = pytest.mark.skipif(
    not EVALUATION_DATA, reason="QUINTET_EVAL_DATA names no folder with evaluation data"
)


def evaluation_set(name: str) -> Path:
    """Return the folder of a set."""
    return Path(EVALUATION_DATA) / name
