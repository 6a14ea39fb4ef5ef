"""What the dashboards' panels have in common: a title, a unit, and expressions with legends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.timeseries import Panel as LinesPanel
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef

INTERVAL = "$__rate_interval"
"""Grafana's own: at least four scrapes."""

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True)
class Panel:
    """A panel, whose `queries` are pairs of an expression and a legend.

    `unit` is Grafana's name of it ("s", "percentunit", "ops"); `is_number` shows the latest
    value and no lines. `text` says what to see in it.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    text: str = ""
    is_number: bool = False
    has_exemplars: bool = False


def rate(metric: str, selector: str = "", by: str = "") -> str:
    """Return the rate of a counter, summed, or summed by labels."""
    grouped = f" by ({by})" if by else ""
    braces = f"{{{selector}}}" if selector else ""
    return f"sum{grouped} (rate({metric}{braces}[{INTERVAL}]))"


def or_zero(expression: str) -> str:
    """Return an expression that is 0 where there is nothing."""
    return f"({expression}) or vector(0)"


def lines(title: str, unit: str, *queries: tuple[str, str], text: str = "") -> Panel:
    """Return a panel of lines over time."""
    return Panel(title, unit, queries, text)


def number(title: str, unit: str, expression: str, text: str = "") -> Panel:
    """Return a panel of the latest value."""
    return Panel(title, unit, ((expression, ""),), text, is_number=True)


def quantiles(title: str, histogram: str, selector: str, *, by: str = "", text: str = "") -> Panel:
    """Return a panel of the median, the 95th and the 99th percentile of a histogram of seconds,
    with its exemplars; `by` is a label to tell apart."""
    grouped, legend = ("le", "") if not by else (f"le, {by}", f" {{{{{by}}}}}")
    rate = f"sum by ({grouped}) (rate({histogram}_bucket{{{selector}}}[{INTERVAL}]))"
    queries = tuple(
        (f"histogram_quantile({share}, {rate})", f"p{int(100 * share)}{legend}")
        for share in (0.5, 0.95, 0.99)
    )
    return Panel(title, "s", queries, text, has_exemplars=True)


def board(name: str, title: str, rows: dict[str, list[Panel]]) -> dict[str, Any]:
    """Return the dashboard of uid `quintet-<name>`, its panels by the titles of their rows."""
    built = (
        Dashboard(title)
        .uid(f"quintet-{name}")
        .tags(["quintet"])
        .refresh("30s")
        .time("now-3h", "now")
        .readonly()
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for heading, panels in rows.items():
        built = built.with_row(Row(heading))
        for panel in panels:
            built = built.with_panel(_built(panel))
    return built.build()  # type: ignore[return-value]  # the encoder takes it as it is


def _built(panel: Panel) -> StatPanel | LinesPanel:
    it: StatPanel | LinesPanel
    if panel.is_number:
        it = StatPanel().height(4).span(6)
    else:
        legend = (
            VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        it = LinesPanel().height(8).span(12).legend(legend).fill_opacity(8)
    it = it.title(panel.title).description(panel.text).unit(panel.unit).datasource(_SOURCE)
    for expression, legend_format in panel.queries:
        query = Dataquery().expr(expression).legend_format(legend_format).datasource(_SOURCE)
        it = it.with_target(query.exemplar(panel.has_exemplars))
    return it
