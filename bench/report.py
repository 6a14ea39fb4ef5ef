"""Figures as files and as a table: build/bench.json, and docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from bench.chart import bar, svg
from bench.figures import Figure, shown
from bench.machine import Circumstances
from bench.reasons import REASONS

_UNSTEADY = 0.25
"""Spread, as a part of the value, from which something else was computing beside the
bench: such a figure is to be taken again, and says so."""


class Report:
    """The figures of each bench that has run, and under which circumstances.

    `file` holds the figures alone; what they were taken with lies beside it. Running
    one bench again replaces its figures and keeps the others'.
    """

    def __init__(
        self,
        file: Path,
        figures: dict[str, list[Figure]],
        circumstances: dict[str, Circumstances],
    ) -> None:
        self._file = file
        self._figures = figures
        self._circumstances = circumstances

    @classmethod
    def load(cls, file: Path) -> Report:
        """Return the report in `file`, an empty one without it."""
        about = _beside(file)
        if not (file.is_file() and about.is_file()):
            return cls(file, {}, {})
        circumstances = {
            name: Circumstances(**it) for name, it in json.loads(about.read_text()).items()
        }
        figures: dict[str, list[Figure]] = {name: [] for name in circumstances}
        for it in json.loads(file.read_text()):
            figure = Figure(**{**it, "spread": tuple(it["spread"])})
            figures.setdefault(_bench_of(figure), []).append(figure)
        return cls(file, figures, circumstances)

    def put(self, bench: str, figures: list[Figure], circumstances: Circumstances) -> None:
        """Take a bench's figures and write the files."""
        self._figures[bench] = figures
        self._circumstances[bench] = circumstances
        self._file.parent.mkdir(parents=True, exist_ok=True)
        flat = [asdict(figure) for it in self._figures.values() for figure in it]
        self._file.write_text(json.dumps(flat, indent=1, ensure_ascii=False) + "\n")
        about = {name: asdict(it) for name, it in self._circumstances.items()}
        _beside(self._file).write_text(json.dumps(about, indent=1) + "\n")

    def publish(self, folder: Path) -> None:
        """Write `folder`/benchmarks.md and its chart."""
        (folder / "benchmarks.svg").write_text(svg(self._all()))
        (folder / "benchmarks.md").write_text(self._markdown())

    def _all(self) -> list[Figure]:
        return [figure for it in self._figures.values() for figure in it]

    def _markdown(self) -> str:
        lines = [
            "# Benchmarks",
            "",
            "Written by `python -m bench --publish` from the last run of `make bench`; how each",
            "figure is taken stands in [`bench/`](../bench/). All that is compared runs in one",
            "run, taking turns, with as many threads as there are cores; values are medians of",
            "the rounds, spreads their quartiles, ratios medians of each round's ratio. What",
            "falls short of its goal is shown as it is.",
            "",
            "![Each figure that has a goal, as a part of it](benchmarks.svg)",
            "",
        ]
        for name, figures in self._figures.items():
            about = self._circumstances[name]
            lines += [
                f"## {name}",
                "",
                f"{about.date}, commit {about.commit}. {about.machine}.",
                "",
                "| figure | value | spread | compared with | ratio | goal | met |",
                "|---|---|---|---|---|---|---|",
            ]
            lines += ["| " + " | ".join(_cells(figure)) + " |" for figure in figures]
            short = [figure for figure in figures if figure.met is False]
            reasons = [(it.name, REASONS[it.name]) for it in short if it.name in REASONS]
            lines += ["", *(f"- *{figure}*: {reason}" for figure, reason in reasons)]
            lines += [""] if reasons else []
        return "\n".join(lines).rstrip() + "\n"


def table(figures: Sequence[Figure]) -> Table:
    """Return a terminal's table."""
    found = Table(show_lines=False, expand=True)
    for heading in ("figure", "value", "spread", "compared with", "ratio", "goal", "", ""):
        found.add_column(heading, justify="right" if heading in ("value", "ratio") else "left")
    for figure in figures:
        style = {True: "green", False: "red", None: ""}[figure.met]
        found.add_row(*_cells(figure), bar(figure), style=style)
    return found


def _cells(figure: Figure) -> tuple[str, ...]:
    low, high = figure.spread
    met = {True: "yes", False: "no", None: "not measured" if figure.goal else ""}[figure.met]
    unsteady = "unsteady" if high - low > _UNSTEADY * figure.value else ""
    return (
        figure.name.partition(": ")[2],
        f"{shown(figure.value)} {figure.unit}",
        f"{shown(low)}-{shown(high)}",
        figure.compared_with,
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        figure.goal,
        ", ".join(filter(None, (met, unsteady))),
    )


def _bench_of(figure: Figure) -> str:
    return figure.name.partition(": ")[0]


def _beside(file: Path) -> Path:
    return file.with_suffix(".about.json")
