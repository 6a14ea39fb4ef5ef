"""Writes the comparisons of `evaluation.ways` into a page, between two comments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BEGIN, END = "<!-- figures: make eval EVAL=answers -->", "<!-- end of figures -->"

_SETS = {
    "xquad": "XQuAD",
    "clapnq": "ClapNQ",
    "headings": "notes, headings",
    "sentences": "notes, sentences with a link",
}
_COLUMNS = {
    "right": "right, %",
    "refused wrongly": "refused wrongly, %",
    "refused rightly": "refused rightly, %",
    "recall": "recall",
    "f1": "F1",
    "exact": "EM, %",
    "words": "words",
}
_MODELS = tuple(_COLUMNS)
_STEPS = ("right", "recall", "f1", "words")
_HEADINGS = {
    "models": "### Models",
    "evidence": "### What the local model is given",
    "links": "### Followed links, extractive",
    "refinements": "### Refinements, extractive",
}

Figures = Mapping[str, Any]


def filled(page: str, figures: Figures, date: str) -> str:
    """Return a page with the figures between its two comments. Raises ValueError if it
    lacks one of them."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{tables(figures, date)}{END}{after}"


def tables(figures: Figures, date: str) -> str:
    """Return all comparisons as Markdown."""
    lines = ["", f"Commit of {date}."]
    for name, compared in figures.items():
        if not compared:
            continue
        lines += ["", _HEADINGS[name], ""]
        lines += _models(compared) if name == "models" else _steps(compared)
    return "\n".join([*lines, "", ""])


def _models(sets: Figures) -> Iterator[str]:
    yield f"| | {' | '.join(_COLUMNS[it] for it in _MODELS)} |"
    yield "|---" * (len(_MODELS) + 1) + "|"
    for name, found in sets.items():
        counts = f"{found['with an answer']} with an answer, {found['without']} without"
        yield f"| **{_SETS[name]}**, {counts} |{' |' * len(_MODELS)}"
        for way, means in found["ways"].items():
            yield f"| {way} | {' | '.join(_mean(key, means[key]) for key in _MODELS)} |"


def _steps(sets: Figures) -> Iterator[str]:
    columns = [it for it in _STEPS if any(it in _first(found) for found in sets.values())]
    yield f"| | {' | '.join(_COLUMNS[it] for it in columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, found in sets.items():
        yield f"| **{_SETS[name]}**, {found['with an answer']} |{' |' * len(columns)}"
        plain = _first(found)
        for way, means in found["ways"].items():
            cells = [_against(key, means[key], means is plain) for key in columns if key in means]
            yield f"| {way} | {' | '.join(cells)} |"


def _first(found: Figures) -> Figures:
    first: Figures = next(iter(found["ways"].values()))
    return first


def _mean(key: str, it: Figures) -> str:
    return f"{_number(key, it['mean'])} ({_number(key, it['low'])}–{_number(key, it['high'])})"


def _against(key: str, it: Figures, is_first: bool) -> str:
    if is_first:
        return _mean(key, it)
    low, high = (_signed(key, it["against"][end]) for end in ("low", "high"))
    return f"{_number(key, it['mean'])} ({low} to {high})"


def _number(key: str, value: float) -> str:
    if _COLUMNS[key].endswith("%"):
        return f"{100 * value:.1f}"
    return f"{value:.0f}" if key == "words" else f"{value:.3f}"


def _signed(key: str, value: float) -> str:
    size = f"{abs(value):.1f}" if key == "words" else _number(key, abs(value))
    return ("−" if value < 0 else "+") + size
