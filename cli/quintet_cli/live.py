"""What moves while something is waited for: on standard error, in terminals only."""

from __future__ import annotations

import sys

from rich import progress as bars

from quintet_cli.terminal import console


class Waiting:
    """A line that tells what is waited for, in a terminal; nothing in a pipe."""

    def __init__(self, text: str) -> None:
        self._status = console(stderr=True).status(f"{text}…", spinner="dots")
        self._live = sys.stderr.isatty()

    def tell(self, text: str) -> None:
        """Change the line."""
        self._status.update(f"{text}…")

    def stop(self) -> None:
        """Take the line away; doing so twice is fine."""
        if self._live:
            self._live = False
            self._status.stop()

    def __enter__(self) -> Waiting:
        if self._live:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Progress:
    """A bar on standard error, in a terminal; nothing in a pipe."""

    def __init__(self, text: str, *, total: int, unit: str) -> None:
        self._console = console(stderr=True)
        self.live = self._console.is_terminal
        """Whether a bar is seen."""
        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn(unit),
            bars.TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self.live,
        )
        self._task = self._bar.add_task(text, total=total)

    def advance(self) -> None:
        """Count one more."""
        self._bar.advance(self._task)

    def reach(self, done: int, total: int) -> None:
        """Show so many of so many."""
        self._bar.update(self._task, completed=done, total=total)

    def print(self, line: str, style: str | None = None) -> None:
        """Print a line to standard error, above the bar."""
        self._console.print(line, style=style)

    def stop(self) -> None:
        """Take the bar away; doing so twice is fine."""
        self._bar.stop()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
