"""Prepares the packaged model: `python -m quintet_generator.prepare`.

Run once after an install, so that no start has to: in the form of each local backend
that is set. Nothing to do when it is there.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import Progress, TaskID

from quintet_generator.model_files import OPENVINO, TRANSFORMERS, prepare_packaged
from quintet_generator.settings import GeneratorSettings


def main() -> int:
    """Prepare the model, with a progress bar in a terminal; return the exit status."""
    console = Console()
    settings = GeneratorSettings()
    for kind, recipe in (("openvino", OPENVINO), ("transformers", TRANSFORMERS)):
        if kind not in settings.backends:
            continue
        with Progress(console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("Preparing the language model", total=None)

            def tell(done: int, total: int, bar: Progress = bar, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            folder = prepare_packaged(settings.model_dir, recipe, tell)
        console.print(f"The language model is in {folder}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
