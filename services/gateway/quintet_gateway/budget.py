"""How a question's time is shared out: each call gets what remains, less what later
ones need."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from quintet_servicekit.latency import Latency

CALLS = 64
"""Calls of a step over which its latency is taken: enough for a quantile, few enough to
follow a change of load within a second of it."""
QUANTILE = 0.9
"""Share of those calls for which the time kept free for a step would have been enough."""
MODELS = 32
"""Models of whose calls the latency is kept; of more, those that answered most recently."""
LEAST_SHARE = 0.5
"""Share of what remains that a call gets whatever later ones need. Who has too little
time for all is better served if the first ones have a chance."""


class Plan:
    """The steps of one kind of request, in their order, and how long they take of late.

    A step may be taken by one of several models, each as quick as it is: by a small
    one's calls nothing is known of a large one's.

    `floors` holds the least seconds to keep free for each step, by method; for those that
    are `optional` nothing is kept free by the steps before them;
    `reply_seconds` are kept free for the way back. A call that has a substitute is
    given up after `substitute_after` seconds at the latest.
    """

    def __init__(
        self,
        floors: Mapping[str, float],
        *,
        reply_seconds: float,
        substitute_after: float,
        optional: Collection[str] = (),
    ) -> None:
        self._floors = dict(floors)
        steps = list(floors)
        self._later = {it: steps[place:] for place, it in enumerate(steps, start=1)}
        self._optional = frozenset(optional)
        self._latencies: OrderedDict[tuple[str, str], Latency] = OrderedDict()
        self._reply = reply_seconds
        self._substitute_after = substitute_after

    def answered(self, method: str, seconds: float, model: str = "") -> None:
        """Note that a call was answered, or that a stream began, after `seconds`; of which
        model, where it matters."""
        if method in self._floors:
            key = (method, model)
            self._latencies.setdefault(key, Latency(calls=CALLS, share=QUANTILE)).add(seconds)
            self._latencies.move_to_end(key)
            if len(self._latencies) > len(self._floors) + MODELS:
                self._latencies.popitem(last=False)

    def needed(self, method: str, model: str = "") -> float:
        """Return the seconds to keep free for a step, which `model` takes if models do."""
        least = self._floors[method]
        for known in ("", model) if model else ("",):
            latency = self._latencies.get((method, known))
            if latency is not None:
                least = max(least, latency.quantile)
        return least

    def share(
        self, method: str, remaining: float, model: str = "", *, replaceable: bool = False
    ) -> float:
        """Return the seconds for a call where the request has `remaining` and wants an
        answer of `model`.

        A `replaceable` call is one whose failure something else is served for.
        """
        share = self._less(remaining, self._needed_after(method, model) + self._reply)
        return min(share, self._substitute_after) if replaceable else share

    def first_share(self, method: str, remaining: float) -> float:
        """Return the seconds for a stream to begin, if another may be tried instead."""
        return self._less(remaining, self._floors.get(method, 0.0) + self._reply)

    def is_short(self, method: str, remaining: float) -> bool:
        """Whether `remaining` is too little for a step, if nothing came after it."""
        return remaining < self.needed(method) + self._reply

    def is_short_for(self, method: str, remaining: float, model: str = "") -> bool:
        """Whether `remaining` is too little for a step and all that come after it."""
        return self.is_short_after(method, remaining - self.needed(method), model)

    def is_short_after(self, method: str, remaining: float, model: str = "") -> bool:
        """Whether `remaining` is too little for all steps that come after one."""
        return remaining < self._needed_after(method, model) + self._reply

    def _needed_after(self, method: str, model: str) -> float:
        # A call that is no step, such as a look at the collection, comes before all.
        later = self._later.get(method, self._floors)
        return sum(self.needed(it, model) for it in later if it not in self._optional)

    @staticmethod
    def _less(remaining: float, reserved: float) -> float:
        return max(remaining - reserved, LEAST_SHARE * remaining)
