"""The one error of the Redis side."""

from __future__ import annotations


class AwayError(Exception):
    """Redis did not do what was asked; go on without it. It has been counted."""
