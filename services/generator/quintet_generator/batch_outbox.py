"""What the steps of the batching process gave and its service has not been told yet."""

from __future__ import annotations

from collections.abc import Sequence

from quintet_generator.batch_messages import Progress, Told


class Outbox:
    """Gathers what steps give, and says when it is to be told.

    A request's first tokens and its end are told at once. In between, the tokens of some
    steps go together, at least every `seconds`: a person reads no faster, and each
    telling takes a millisecond of the processors, in three processes, from the model that
    computes on them.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._steps = 0
        self._gathered: dict[int, Progress] = {}
        self._begun: set[int] = set()
        self._is_urgent = False
        self._told_at = 0.0

    def add(self, progress: Sequence[Progress]) -> None:
        """Take what one step gave."""
        self._steps += 1
        for it in progress:
            self._is_urgent |= it.id not in self._begun or it.ending is not None
            self._begun.add(it.id)
            if it.ending is not None:
                self._begun.discard(it.id)
            before = self._gathered.get(it.id)
            self._gathered[it.id] = it if before is None else _joined(before, it)

    def drop(self, request: int) -> None:
        """Forget a request, whose caller has left."""
        self._gathered.pop(request, None)
        self._begun.discard(request)

    def take(self, now: float) -> Told | None:
        """Return what is to be told at `now`, in seconds of some clock; None to wait."""
        if not self._gathered or not (self._is_urgent or now - self._told_at >= self._seconds):
            return None
        told = Told(self._steps, list(self._gathered.values()))
        self._steps, self._gathered = 0, {}
        self._is_urgent, self._told_at = False, now
        return told


def _joined(before: Progress, after: Progress) -> Progress:
    return Progress(
        before.id,
        [*before.tokens, *after.tokens],
        [*before.logprobs, *after.logprobs],
        after.ending,
    )
