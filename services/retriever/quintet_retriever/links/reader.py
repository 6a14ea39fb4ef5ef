"""Reads documents' links on a thread of its own, so that a large one stops nobody else."""

from __future__ import annotations

from quintet_retriever.links.models import DocumentLinks
from quintet_retriever.links.parsing import links_of
from quintet_retriever.models import DocumentInput
from quintet_servicekit.executor import BoundedExecutor

_QUEUE = 1_024
"""Documents that may wait: as many as calls that a service takes, since each call reads
its documents one after the other."""


class ParsedLinks:
    """Implements the engine's `LinkReader`. `close` it."""

    def __init__(self) -> None:
        # One thread: the work is Python's own, of which two threads do no more.
        self._executor = BoundedExecutor("links", threads=1, queue=_QUEUE)

    async def read(self, document: DocumentInput) -> DocumentLinks:
        """Return the document's names and its links. Raises `ServiceError` OVERLOADED."""
        content = "" if document.plain else document.content
        return await self._executor.run(
            links_of, document.id, document.title, content, document.metadata
        )

    async def close(self) -> None:
        """End the thread."""
        await self._executor.close()
