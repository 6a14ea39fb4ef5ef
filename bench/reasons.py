"""Why a figure falls short of its goal, where we know, by the figure's name.

Shown beside it in docs/benchmarks.md while it falls short, and only then.
"""

REASONS: dict[str, str] = {}
