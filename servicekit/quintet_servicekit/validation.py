"""Checks of what callers send, collected so that one error names every fault."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quintet_servicekit.errors import Reason, ServiceError, Violation

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Checks:
    """Collects violations; `done` raises them together.

    Sizes are raised at once with their own reason, because nothing more should
    be looked at in a message that is too large.
    """

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def refuse(self, field: str, description: str) -> None:
        """Note that `field` breaks its bounds."""
        self._violations.append(Violation(field, description))

    def text(
        self,
        field: str,
        value: str,
        *,
        max_chars: int,
        required: bool = True,
        blank_ok: bool = False,
    ) -> None:
        """Check a text: at most `max_chars` characters, no NUL, and not empty if
        `required` (nor white space alone, unless `blank_ok`)."""
        if len(value) > max_chars:
            raise ServiceError(
                Reason.INPUT_TOO_LONG,
                f"{field} has {len(value)} characters, and at most {max_chars} are accepted",
                metadata={"limit": str(max_chars), "actual": str(len(value)), "unit": "characters"},
                violations=[Violation(field, f"must have at most {max_chars} characters")],
            )
        if "\0" in value:
            self.refuse(field, "must not contain NUL")
        if required and not (value if blank_ok else value.strip()):
            self.refuse(field, "must not be empty")

    def batch(self, field: str, items: Sequence[object], *, max_items: int) -> None:
        """Check that a batch holds 1 to `max_items` items."""
        if len(items) > max_items:
            raise ServiceError(
                Reason.BATCH_TOO_LARGE,
                f"{field} holds {len(items)} items, and at most {max_items} are accepted",
                metadata={"limit": str(max_items), "actual": str(len(items))},
                violations=[Violation(field, f"must hold at most {max_items} items")],
            )
        if not items:
            self.refuse(field, "must hold at least one item")

    def number(self, field: str, value: float, *, least: float, most: float) -> None:
        """Check that a number lies within its bounds; NaN does not."""
        if not least <= value <= most:
            self.refuse(field, f"must lie between {least} and {most}")

    def request_id(self, field: str, value: str) -> None:
        """Check the id by which a repeated request is known: empty, or a UUID."""
        if value and not _UUID.fullmatch(value):
            self.refuse(field, "must be a UUID of 36 characters")

    def done(self) -> None:
        """Raise `ServiceError` INVALID_FIELD if anything was noted."""
        if self._violations:
            first = self._violations[0]
            raise ServiceError(
                Reason.INVALID_FIELD,
                f"{first.field} {first.description}",
                violations=self._violations,
            )
