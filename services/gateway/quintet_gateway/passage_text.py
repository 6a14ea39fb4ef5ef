"""What the generator is given of a passage, and where that stands in its document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quintet_gateway.alignment import Alignment
from quintet_servicekit.invisible import invisible_spans, spaced

Spans = Sequence[tuple[int, int]]
"""Stretches of a text, ends exclusive, in order and apart."""


@dataclass(frozen=True)
class PassageText:
    """A passage without what must not reach the generator.

    `alignment` leads from its characters to those of the passage; None where the two
    are the same.
    """

    text: str
    alignment: Alignment | None

    def stretch(self, start: int, end: int) -> tuple[int, int]:
        """Return the stretch of the passage that a stretch of `text` stands for."""
        return self.alignment.stretch_before(start, end) if self.alignment else (start, end)


def given_of(text: str, withheld: Spans = ()) -> PassageText:
    """Return what is given of a passage: neither characters that nobody sees nor the
    stretches `withheld`."""
    text = spaced(text)
    cuts = sorted([*withheld, *invisible_spans(text)])
    if not cuts:
        return PassageText(text, None)
    alignment, kept, at = Alignment(), [], 0
    for start, end in cuts:
        if start > at:
            kept.append(text[at:start])
            alignment.keep(start - at)
        if end > at:
            alignment.drop(end - max(at, start))
            at = end
    kept.append(text[at:])
    alignment.keep(len(text) - at)
    return PassageText("".join(kept), alignment)
