"""Whether a call is made for somebody who waits, or in bulk: an ingest, a rerun of answers.

It travels from the caller through all services: as metadata between them, as a context
variable within one. Bulk calls get a smaller share and yield (`admission`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from contextvars import ContextVar

PRIORITY_KEY = "quintet-priority"
"""Metadata with a call's priority."""


class Priority(enum.StrEnum):
    """What kind of work a call is made for."""

    QUESTION = "question"
    """Somebody waits. What every call is whose caller says nothing."""
    BULK = "bulk"


priority_now: ContextVar[Priority] = ContextVar("priority", default=Priority.QUESTION)
"""Priority of the call that is being worked on."""


def priority_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> Priority:
    """Return the priority that a call's metadata names; an unknown one is a question."""
    for key, value in metadata or ():
        if key == PRIORITY_KEY and value == Priority.BULK:
            return Priority.BULK
    return Priority.QUESTION
