"""Stop texts: where an answer ends because a caller's text came up."""

from __future__ import annotations

from collections.abc import Sequence


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first of `stops` begins in `text`, or None."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return min(found, default=None)


class StopMatcher:
    """Lets text through up to the first stop text, wherever its pieces are cut."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """Return the text that is now certain to belong to the answer.

        What may be the beginning of a stop text is held back. Once a stop text
        is complete, `stopped` is true and nothing more comes out.
        """
        if self.stopped:
            return ""
        text = self._held + piece
        at = first_stop(text, self._stops)
        if at is not None:
            self.stopped, self._held = True, ""
            return text[:at]
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back: the answer ended without the stop text."""
        text, self._held = self._held, ""
        return text

    def _possible_beginning(self, text: str) -> int:
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
