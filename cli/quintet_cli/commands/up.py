"""`quintet up`: the whole of Quintet on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from quintet_cli.local import StartBoard, started
from quintet_cli.local import run as run_with_stack
from quintet_cli.settings import Settings
from quintet_cli.terminal import console, print_json, seconds, table


def run(settings: Settings) -> None:
    """Start the stack, print where everything is, and keep it running."""
    run_with_stack(_run(settings))


async def _run(settings: Settings) -> None:
    out, began = console(), time.perf_counter()
    board = StartBoard(silent=settings.json)
    is_up = False
    try:
        async with started(settings, board) as stack:
            is_up = True
            if settings.json:
                print_json({"gateway": stack.gateway, "endpoints": stack.endpoints})
            else:
                out.print(f"Quintet is up, after {seconds(time.perf_counter() - began)}.")
                out.print()
                endpoints(out, stack.endpoints, board.took)
                out.print()
                _try_next(out, settings.state_dir, stack.gateway)
            try:
                await asyncio.Event().wait()
            finally:
                if not settings.json:
                    out.print("stopping…")
    except asyncio.CancelledError:
        # Once it is up, being stopped is how it is meant to end.
        if not is_up:
            raise
    if not settings.json:
        out.print("stopped")


def endpoints(
    out: Console, found: Mapping[str, Mapping[str, str]], took: Mapping[str, float]
) -> None:
    """Print what answers where, and how long each took to be ready."""
    rows = table("what", "address", "metrics", ">ready after")
    for name, addresses in found.items():
        address = next(value for kind, value in addresses.items() if kind != "metrics")
        ready = seconds(took[name]) if name in took else ""
        rows.add_row(name, address, addresses.get("metrics", ""), ready)
    out.print(rows)


def _try_next(out: Console, state_dir: Path, gateway: str) -> None:
    quintet = command_name()
    if state_dir != Path(".quintet"):
        quintet += f" --state-dir {state_dir}"
    rows = table("In another terminal, in this folder:", "")
    rows.add_row(f"{quintet} ingest PATH", "bring in .md, .txt, .rst and .html files")
    rows.add_row(f'{quintet} ask "…"', "an answer with its sources")
    rows.add_row(f'{quintet} search "…"', "the passages alone")
    rows.add_row(f"{quintet} status", "how the services are, and their models")
    rows.add_row(f"tail -f {state_dir}/logs/*.log", "the services' logs")
    out.print(rows)
    out.print()
    out.print("Any gRPC client works too, through reflection:", style="bold")
    method = "quintet.gateway.v1.GatewayService/GetStatus"
    out.print(
        f"buf curl --protocol grpc --http2-prior-knowledge -H @{state_dir}/authorization "
        f"-d '{{}}' http://{gateway}/{method}",
        soft_wrap=True,
    )
    out.print()
    out.print("Ctrl-C stops everything; the documents stay for the next time.", style="bold")


def command_name() -> str:
    """Return how this command is to be typed in a shell like the caller's."""
    path = Path(sys.argv[0])
    found = shutil.which("quintet")
    if path.name != "quintet" or (found and Path(found).resolve() == path.resolve()):
        return "quintet"
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
