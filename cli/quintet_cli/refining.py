"""Steps of a refinement, as the command line writes them: `rerank`, `diverse=0.7`."""

from __future__ import annotations

from collections.abc import Sequence

from quintet.gateway.v1.gateway_service_pb2 import Refinement
from quintet_cli.errors import CliError

_SWITCHES = {"rerank": "rerank", "merge": "merge_neighbours"}
_SHARES = {"collapse": "collapse_similarity", "diverse": "mmr_lambda"}
_NUMBERS = {"per-document": "max_per_document", "candidates": "candidates"}
_MOST = 1_000


def parsed(steps: Sequence[str]) -> Refinement | None:
    """Return the refinement that the steps make; None without one.

    Raises `CliError` (usage) for what is no step, or has no value or a wrong one.
    """
    if not steps:
        return None
    refinement = Refinement()
    for step in steps:
        name, has_value, value = step.partition("=")
        try:
            if name in _SWITCHES and not has_value:
                setattr(refinement, _SWITCHES[name], True)
            elif name in _SHARES and 0 <= float(value) <= 1:
                setattr(refinement, _SHARES[name], float(value))
            elif name in _NUMBERS and 1 <= int(value) <= _MOST:
                setattr(refinement, _NUMBERS[name], int(value))
            else:
                raise ValueError
        except ValueError:
            raise CliError(
                f"{step!r} is no step of a refinement",
                advice="rerank, merge, collapse=0…1, diverse=0…1, per-document=1…, candidates=1…",
                usage=True,
            ) from None
    return refinement
