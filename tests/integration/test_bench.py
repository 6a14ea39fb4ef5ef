"""The benchmarks run: each once, as small as it gets, whatever it measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.chart import score, svg
from bench.figures import Figure, alone, compared, exceeding
from bench.machine import circumstances
from bench.report import Report
from bench.runner import NAMES

# All benches at once, beside other tests.
pytestmark = pytest.mark.timeout(330)

MEMBERS = {"name", "value", "unit", "compared_with", "ratio", "goal", "met", "spread"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The figures of a quick run of everything."""
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QUINTET_")}
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--out", str(out)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_a_quick_run_of_every_bench_gives_figures_with_exactly_their_members(report: Path) -> None:
    figures = json.loads(report.read_text())
    assert all(figure.keys() == MEMBERS for figure in figures)
    assert {figure["name"].partition(":")[0] for figure in figures} == set(NAMES)
    assert all(figure["spread"][0] <= figure["value"] <= figure["spread"][1] for figure in figures)


def test_what_was_not_measured_is_told_of_and_meets_no_goal(report: Path) -> None:
    figures = json.loads(report.read_text())
    peers = [figure for figure in figures if "infinity" in figure["compared_with"]]
    assert peers
    assert all(it["met"] is None and it["ratio"] is None for it in peers)


def test_a_report_is_published_with_the_machine_and_every_figure(
    report: Path, tmp_path: Path
) -> None:
    Report.load(report).publish(tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert circumstances().machine in page
    for figure in json.loads(report.read_text()):
        assert figure["name"].partition(": ")[2] in page
    assert (tmp_path / "benchmarks.svg").read_text().startswith("<svg")


def test_running_one_bench_again_keeps_the_figures_of_the_others(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    report = Report.load(out)
    report.put("a", [alone("a: one", "ms", [1.0])], circumstances())
    report.put("b", [alone("b: one", "ms", [2.0])], circumstances())
    Report.load(out).put("a", [alone("a: one", "ms", [3.0])], circumstances())
    values = {it["name"]: it["value"] for it in json.loads(out.read_text())}
    assert values == {"a: one": 3.0, "b: one": 2.0}


def test_a_ratio_is_taken_round_by_round() -> None:
    # Each round the machine was another time as fast; the ratio was the same in all.
    figure = compared("x", "texts/s", [10.0, 40.0, 20.0], "y", [5.0, 20.0, 10.0], at_least=2)
    assert figure.ratio == 2.0
    assert figure.value == 20.0
    assert figure.met is True


@pytest.mark.parametrize(("ours", "met"), [([3.0, 3.2, 3.4], True), ([4.0, 4.2, 4.4], False)])
def test_an_excess_is_held_to_its_limit(ours: list[float], met: bool) -> None:
    assert exceeding("x", "ms", ours, "y", [2.0, 2.1, 2.2], at_most=1.5).met is met


def test_a_bar_of_the_chart_is_as_long_as_its_goal_is_met() -> None:
    slow = alone("slow", "ms", [6.0], at_most=3.0)
    fast = compared("fast & good", "texts/s", [12.0], "other", [10.0], at_least=1.0)
    near = exceeding("near", "ms", [5.0], "other", [2.0], at_most=0.5)
    bare = alone("bare", "ms", [6.0])
    assert [score(it) for it in (slow, fast, near, bare)] == [0.5, 1.2, 0.5, None]
    assert "fast &amp; good" in svg([slow, fast, bare])
    assert "bare" not in svg([slow, fast, bare])


def test_no_goal_is_met_or_missed_without_the_other() -> None:
    figure: Figure = compared("x", "ms", [1.0], "y: could not be installed", None, at_most=1.0)
    assert figure.met is None
    assert figure.compared_with == "y: could not be installed"
