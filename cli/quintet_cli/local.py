"""The stack on this machine, which is an extra of the command: the client alone
runs anywhere."""

from __future__ import annotations

import asyncio
import importlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from quintet_cli.errors import CliError
from quintet_cli.settings import Settings
from quintet_cli.terminal import console, seconds, shown, table

if TYPE_CHECKING:
    from quintet_local.supervisor import Progress, Stack

T = TypeVar("T")


def installed(module: str) -> Any:
    """Return a module of `quintet_local`. Raises `CliError` where it isn't installed."""
    try:
        return importlib.import_module(f"quintet_local.{module}")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("quintet_local"):
            raise
        raise CliError(
            "the local stack is not installed here",
            advice="install quintet-cli[local], or run `make install` in a checkout",
        ) from None


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run what uses `started` and return its result.

    Raises `KeyboardInterrupt` for each of the signals that end it.
    """
    try:
        return asyncio.run(main)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@asynccontextmanager
async def started(settings: Settings, board: StartBoard) -> AsyncIterator[Stack]:
    """Run a stack in the settings' folder, its start shown on `board`.

    SIGTERM and a closed terminal end it as Ctrl-C does: by cancelling the caller.
    Raises `CliError` when it cannot start.
    """
    supervisor = installed("supervisor")
    start_error = installed("process").StartError
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for signum in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, task.cancel)
    try:
        with board:
            async with supervisor.running_stack(
                settings.state_dir, on_progress=board.update
            ) as stack:
                board.stop()
                yield stack
    except start_error as error:
        raise CliError(str(error), reason="NOT_STARTED") from error


class StartBoard:
    """What starts and how long it takes: live in a terminal, else a line each.

    Once stopped it tells only of what nobody asked for: restarts and failures.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._console = console(stderr=True)
        self._silent = silent
        self._began: dict[str, float] = {}
        self._news: dict[str, Progress] = {}
        self._starting = True
        self._live = Live(
            get_renderable=self._board,
            console=self._console,
            refresh_per_second=10,
            transient=True,
        )
        self.took: dict[str, float] = {}
        """Seconds that each member took to be ready, by name."""

    def update(self, news: Progress) -> None:
        """Take one piece of news in."""
        self._news[news.name] = news
        self._began.setdefault(news.name, time.monotonic())
        if news.state == "ready" and self._starting:
            self.took[news.name] = news.seconds
        if self._silent:
            return
        if news.state in ("restarting", "failed"):
            self._console.print(f"{news.name}: {news.state}: {shown(news.detail)}", style="yellow")
        elif not self._starting and news.state == "ready":
            self._console.print(f"{news.name}: ready again after {seconds(news.seconds)}")
        elif self._starting and news.state == "ready" and not self._console.is_terminal:
            self._console.print(f"ready: {news.name} after {seconds(news.seconds)}")

    def stop(self) -> None:
        """End the live display."""
        self._starting = False
        self._live.stop()

    def __enter__(self) -> StartBoard:
        if self._console.is_terminal and not self._silent:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _board(self) -> Table:
        rows = table("", "", "")
        rows.show_header = False
        for name, news in self._news.items():
            if news.state == "ready":
                rows.add_row(Text("✔", "green"), name, seconds(news.seconds))
            else:
                waited = seconds(time.monotonic() - self._began[name])
                rows.add_row(self._spinner, name, Text(f"{news.state} {waited}", "dim"))
        return rows

    _spinner = Spinner("dots", style="cyan")
