"""What a suite is: something that is done to real processes, and what it requires.

Each suite's module has a `SUITE`; `__main__` lists them and runs those that are asked for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from support.stack import TestStack, stack_in_thread

from chaos.report import Check


class BrokenError(Exception):
    """A promise was broken; the first line of the message tells which, the others all that is
    known of it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for. `seed` decides all choices; `amount` is how much is done, in
    the suite's own unit; `only`: parts of the run by name, empty for all."""

    seed: int
    amount: int
    only: Sequence[str] = ()


class Tell(Protocol):
    """Is told how far a run is, as often as one likes."""

    def __call__(self, done: int, said: str, of: int | None = None) -> None:
        """Show that so much is done, `of` so much if that is not the amount asked for."""


@dataclass(frozen=True, slots=True)
class Suite:
    """`run` does all that there is to a suite, with processes of its own. It returns what was
    required and found, or raises `BrokenError`. `amount` is that of a full run, in `unit`s."""

    name: str
    amount: int
    unit: str
    run: Callable[[Options, Tell], Sequence[Check]]


@contextmanager
def own_stack() -> Iterator[TestStack]:
    """Run a stack of which what is killed is started again, however often, and at once."""
    os.environ.setdefault("QUINTET_LOCAL_MAX_RESTARTS", "1000")
    os.environ.setdefault("QUINTET_LOCAL_STEADY_SECONDS", "1")
    with (
        tempfile.TemporaryDirectory(prefix="quintet-chaos-") as folder,
        stack_in_thread(Path(folder) / "state") as stack,
    ):
        yield stack
