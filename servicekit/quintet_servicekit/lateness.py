"""Calls that come too late to be begun.

A server that is flooded has calls in gRPC's own line, where nobody sees them, and gets to
each when a part of its time has passed. To begin those that cannot end in time costs what
the others need: then the line never gets shorter, long after what made it is over.
"""

from __future__ import annotations

import time

from quintet_servicekit.admission import Admission
from quintet_servicekit.latency import Latency
from quintet_servicekit.priority import Priority
from quintet_servicekit.refusal import Context, refuser

CALLS = 64
"""Answered calls of a method by which it is judged what a call needs."""
SHARE = 0.25
"""Share of them for which the time would have been enough. Whoever has less is refused in
overload: three in four would end without an answer."""
VALID_SECONDS = 5.0
"""Time after an answer in which they tell of the present."""


class Lateness:
    """What is too late for one method, whose calls `admission` admits; None: nothing is."""

    def __init__(self, admission: Admission | None) -> None:
        self._admission = admission
        self._latency = Latency(calls=CALLS, share=SHARE)
        self._answered_at = 0.0
        self._refuse = refuser(admission.overloaded()) if admission else None

    def answered(self, seconds: float) -> None:
        """Note that a call was answered, or that a stream began, after so long."""
        self._answered_at = time.monotonic()
        self._latency.add(seconds)

    async def refuse_if_hopeless(self, context: Context) -> None:
        """Refuse a call that is too late, by an exception of gRPC's own."""
        # In calm a guess must not turn away who takes nothing from anybody.
        if self._refuse is None or self._admission is None or not self._admission.is_lowered:
            return
        remaining: float | None = context.time_remaining()
        if (
            remaining is not None
            and remaining < self._latency.quantile
            and time.monotonic() - self._answered_at < VALID_SECONDS
        ):
            self._admission.count_refusal(Priority.QUESTION)
            await self._refuse(context)
