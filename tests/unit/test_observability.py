"""Dashboards, alerts, runbook and the table of metrics, against the code and each other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.prometheus import PROMTOOL, needs_promtool

from deploy.observability.__main__ import generated
from deploy.observability.dashboards import dashboards
from deploy.observability.metric_table import Metric, metrics
from deploy.observability.quicker import quicker

ROOT = Path(__file__).parents[2]
HERE = ROOT / "deploy" / "observability"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
PARTS = ("**What it means.**", "**What to look at.**", "```console", "**What to do.**")
RULES = [
    rule
    for group in yaml.safe_load((HERE / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [it for it in RULES if "alert" in it]


def test_what_is_generated_is_current() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generated().items()
        if not path.exists() or path.read_text() != text
    ]
    assert stale == [], "run `make observability`"


def test_every_name_of_a_metric_says_its_unit() -> None:
    for metric in metrics():
        assert metric.unit
        if metric.type == "histogram":
            assert re.search(r"_(seconds|texts|requests|bytes|tokens)$", metric.name)
    with pytest.raises(LookupError):
        _ = Metric("quintet_things", "gauge", (), "", "").unit


def expressions() -> list[str]:
    """Return the expressions of all panels and rules."""
    return panel_expressions() + [it["expr"] for it in RULES]


def panel_expressions() -> list[str]:
    """Return the expressions of all panels."""
    rows = [row for it in dashboards().values() for row in it.panels]
    panels = [panel for row in rows for panel in (getattr(row, "panels", None) or [row])]
    found = [it.expr for panel in panels for it in getattr(panel, "targets", None) or []]
    assert len(found) > 80
    return found


def test_every_metric_is_on_a_panel() -> None:
    shown = set(re.findall(r"\w+", " ".join(panel_expressions())))
    parts = ("", "_bucket", "_sum", "_count")
    unseen = [it.name for it in metrics() if not shown & {it.name + part for part in parts}]
    assert unseen == []


def test_dashboards_and_alerts_ask_only_for_what_there_is() -> None:
    known = {it["record"] for it in RULES if "record" in it}
    for metric in metrics():
        parts = ("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",)
        known |= {metric.name + part for part in parts}
    named = re.compile(r"\b((?:quintet|grpc|db|process)_[a-zA-Z0-9_:]+)")
    asked = {
        name
        for expression in expressions()
        for name in named.findall(re.sub(r"\"[^\"]*\"|by \([^)]*\)|on \([^)]*\)", "", expression))
        if not re.fullmatch(r"grpc_(method|code|service)|db_\w+_name|process_\w+", name)
    }
    assert asked - known == set()
    assert len(asked) > 30


@pytest.mark.parametrize("alert", ALERTS, ids=lambda it: str(it["alert"]))
def test_every_alert_has_a_section_of_the_runbook(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert alert["annotations"]["summary"]
    assert alert["labels"]["severity"] in ("page", "ticket")
    (section,) = re.findall(rf"^## {name}\n(.+?)(?=^## |\Z)", RUNBOOK, re.M | re.S)
    places = [section.find(part) for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)


def test_every_section_of_the_runbook_is_of_an_alert() -> None:
    assert re.findall(r"^## (.+)$", RUNBOOK, re.M) == [it["alert"] for it in ALERTS]


def test_every_alert_is_seen_to_fire_in_a_unit_test() -> None:
    tests = "".join(it.read_text() for it in HERE.glob("*_test.yaml"))
    assert {it["alert"] for it in ALERTS} == set(re.findall(r'alertname="(\w+)"', tests))


def test_quicker_rules_have_durations_a_sixtieth_as_long_and_are_else_the_same() -> None:
    assert quicker("rate(a_b:rate5m[5m] offset 1h) > 10") == (
        "rate(a_b:rate5m[5000ms] offset 60000ms) > 10"
    )
    assert quicker("for: 15m, interval: 30s, [3d]") == (
        "for: 15000ms, interval: 480ms, [4320000ms]"
    )


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yaml"),
        ("check", "config", "prometheus.yaml"),
        ("test", "rules", "alerts_test.yaml", "alerts_day_test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], cwd=HERE, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
