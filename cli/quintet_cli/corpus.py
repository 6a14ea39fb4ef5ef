"""The Python language reference that every CPython carries, as documents."""

from __future__ import annotations

import platform
from pydoc_data.topics import topics

from quintet_cli import files
from quintet_cli.files import Document

COLLECTION = "python"
DESCRIPTION = "The Python language reference, from pydoc_data.topics"
QUESTIONS = (
    "When are default parameter values evaluated?",
    "How are comparisons chained?",
    "What is a coroutine function?",
)
"""Questions that the reference answers in a sentence or two."""


def documents() -> list[Document]:
    """Return one document a topic, by name, with its first heading as title."""
    version = platform.python_version()
    return [
        Document(
            id=name,
            title=files.heading(text, "rst") or name,
            content=text,
            metadata={"source": "pydoc_data.topics", "python": version},
        )
        for name, text in sorted(topics.items())
    ]
