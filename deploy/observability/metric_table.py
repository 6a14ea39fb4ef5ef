"""The table of docs/metrics.md, from the registry that the services fill when they are imported."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "servicekit", *sorted((ROOT / "services").iterdir()))
SERVICES = frozenset(it.name for it in SOURCES[1:])

UNITS = {
    "seconds": "s",
    "micros": "millionths of the price table's currency",
    **dict.fromkeys(("active", "state"), "0 or 1"),
    **dict.fromkeys(("admission", "calls", "degraded", "flight", "handled", "started"), "calls"),
    **{
        word: word
        for word in (
            "bytes chunks collections connections documents entries records requests rows texts"
            " tokens"
        ).split()
    },
}
"""What the words of a metric's name say of its unit; the last such word holds. A counter
without one counts what its last word names."""


@dataclass(frozen=True)
class Metric:
    """`name` is the one to ask Prometheus for; of a histogram, without its suffixes."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str
    where: str

    @property
    def unit(self) -> str:
        """What its values count or measure. Raises `LookupError` where the name does not say."""
        for word in reversed(self.name.split("_")):
            if word in UNITS:
                return UNITS[word]
        if self.type == "counter":
            return self.name.removesuffix("_total").rpartition("_")[2]
        raise LookupError(f"the name {self.name} does not say what is measured")


def metrics() -> list[Metric]:
    """Return all metrics of Quintet's own, by name."""
    found: dict[str, Metric] = {}
    for module in _modules():
        for value in vars(importlib.import_module(module)).values():
            if isinstance(value, MetricWrapperBase):
                metric = _metric(value, module)
                if metric.name not in found:
                    found[metric.name] = metric
    registered = {it.name for it in REGISTRY.collect()}
    unknown = {it.removesuffix("_total") for it in found} - registered
    assert not unknown, f"not in the registry: {unknown}"
    return sorted(found.values(), key=lambda it: it.name)


def _modules() -> Iterator[str]:
    """Yield the modules that define metrics."""
    for source in SOURCES:
        for path in sorted(source.glob("quintet_*/**/*.py")):
            if re.search(
                r"^from prometheus_client import .*(Counter|Gauge|Histogram)", _head(path)
            ):
                yield ".".join(path.relative_to(source).with_suffix("").parts)


def _head(path: Path) -> str:
    lines = [it for it in path.read_text().splitlines() if it.startswith("from prometheus_client")]
    return lines[0] if lines else ""


def _metric(value: MetricWrapperBase, module: str) -> Metric:
    (described,) = value.describe()
    package = module.split(".")[0].removeprefix("quintet_")
    return Metric(
        described.name + ("_total" if described.type == "counter" else ""),
        described.type,
        tuple(value._labelnames),
        described.documentation,
        package if package in SERVICES else "each",
    )


def table() -> str:
    """Return the table as Markdown."""
    rows = [
        "| metric | type | unit | labels | of | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for it in metrics():
        labels = ", ".join(f"`{label}`" for label in it.labels) or "–"
        rows.append(
            f"| `{it.name}` | {it.type} | {it.unit} | {labels} | {it.where} | {it.meaning} |"
        )
    return "\n".join(rows) + "\n"
