"""`quintet usage`: what calls used and cost."""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from quintet.gateway.v1 import usage_service_pb2 as pb
from quintet_cli import cost
from quintet_cli.connection import connected
from quintet_cli.errors import CliError
from quintet_cli.settings import Settings
from quintet_cli.terminal import as_json, console, print_json, shown, table

PAGE = 1_000
BAR = 30
"""Width of the longest bar, in characters."""
_EIGHTHS = " ▏▎▍▌▋▊▉"
_NUMBERS = (
    "calls",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "embedding_tokens",
    "currency",
    "cost_nanos",
    "saved_nanos",
)


def run(settings: Settings, by: Sequence[str], first: str, last: str, to: Path | None) -> None:
    """Print the tenant's usage: a table with a bar a row, or as CSV, or as JSON one object a
    line. Raises `CliError` for a file that cannot be written."""
    groups = [pb.UsageGroup.Value(f"USAGE_GROUP_{it.upper()}") for it in dict.fromkeys(by)]
    request = pb.GetUsageRequest(first_day=first, last_day=last, group_by=groups, page_size=PAGE)
    rows, budgets = asyncio.run(_all(settings, request))
    columns = [it for it in ("day", "collection", "key", "model") if it in by]
    if to is not None:
        _export(to, columns, rows)
    elif settings.json:
        for row in rows:
            print_json(as_json(row))
        for budget in budgets:
            print_json({"budget": as_json(budget)})
    else:
        _show(columns, rows, budgets)


async def _all(
    settings: Settings, request: pb.GetUsageRequest
) -> tuple[list[pb.UsageRow], list[pb.BudgetState]]:
    rows: list[pb.UsageRow] = []
    budgets: list[pb.BudgetState] = []
    async with connected(settings) as gateway:
        while True:
            page = await gateway.unary("GetUsage", gateway.usage.GetUsage, request)
            rows += page.rows
            budgets += page.budgets
            request.page_token = page.next_page_token
            if not request.page_token:
                return rows, budgets


def _show(
    columns: Sequence[str], rows: Sequence[pb.UsageRow], budgets: Sequence[pb.BudgetState]
) -> None:
    out = console()
    told = table(*columns, ">calls", ">tokens", ">cost", ">saved", "")
    # A bar shows what money there is; where nothing costs anything, calls.
    values = [it.cost_nanos for it in rows]
    values = values if any(values) else [it.calls for it in rows]
    for row, value in zip(rows, values, strict=True):
        told.add_row(
            *(shown(getattr(row, it)) or "-" for it in columns),
            f"{row.calls:,}",
            f"{_tokens(row):,}",
            f"{cost.amount(row.cost_nanos)} {row.currency}",
            cost.amount(row.saved_nanos),
            bar(value / max(values) if max(values) else 0),
        )
    out.print(told if rows else "No calls in these days.")
    for budget in budgets:
        share = budget.spent_nanos / budget.limit_nanos
        out.print(
            f"budget of the {budget.period} from {budget.first_day}: "
            f"{cost.amount(budget.spent_nanos)} of {cost.amount(budget.limit_nanos)} spent "
            f"({share:.0%}) {bar(min(1.0, share))}"
        )


def bar(share: float) -> str:
    """Return a bar for a share from 0 to 1; one that is not 0 is seen."""
    eighths = round(share * BAR * 8) or int(share > 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _tokens(row: pb.UsageRow) -> int:
    return row.input_tokens + row.cached_input_tokens + row.output_tokens + row.embedding_tokens


def _export(to: Path, columns: Sequence[str], rows: Sequence[pb.UsageRow]) -> None:
    if str(to) == "-":
        _write(sys.stdout, columns, rows)
        return
    try:
        with to.open("w", encoding="utf-8", newline="") as file:
            _write(file, columns, rows)
    except OSError as error:
        raise CliError(f"{to} cannot be written: {error.strerror}", usage=True) from error


def _write(file: TextIO, columns: Sequence[str], rows: Sequence[pb.UsageRow]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*columns, *_NUMBERS])
    for row in rows:
        named = [_as_text(getattr(row, it)) for it in columns]
        writer.writerow([*named, *(getattr(row, it) for it in _NUMBERS)])


def _as_text(name: str) -> str:
    # A spreadsheet takes what begins so for a formula.
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
