"""Where the characters of a text stand after some of it was left out, and before."""

from __future__ import annotations

from bisect import bisect_right


class Alignment:
    """Positions in a text and in what is kept of it; told of the text from its start on.

    Positions are character offsets. Of a stretch that was left out, all positions are
    that of the next character kept. `read` characters of the text are told of, of which
    `kept` are kept.
    """

    def __init__(self) -> None:
        self._before: list[int] = []
        self._after: list[int] = []
        self._lengths: list[int] = []
        self.read = 0
        self.kept = 0

    def keep(self, length: int) -> None:
        """Note that the next `length` characters are kept."""
        if length:
            self._before.append(self.read)
            self._after.append(self.kept)
            self._lengths.append(length)
            self.read += length
            self.kept += length

    def drop(self, length: int) -> None:
        """Note that the next `length` characters are left out."""
        self.read += length

    def after(self, position: int) -> int:
        """Return the position in what is kept of one in the text."""
        run = bisect_right(self._before, position) - 1
        if run < 0:
            return 0
        return self._after[run] + min(position - self._before[run], self._lengths[run])

    def before(self, position: int) -> int:
        """Return the position in the text of a character that is kept."""
        run = bisect_right(self._after, position) - 1
        if run < 0:
            return 0
        return self._before[run] + position - self._after[run]

    def stretch_before(self, start: int, end: int) -> tuple[int, int]:
        """Return the stretch of the text from the first to the last of the characters
        kept from `start` to `end` (exclusive)."""
        return self.before(start), (self.before(end - 1) + 1 if end > start else self.before(start))
