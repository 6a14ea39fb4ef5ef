"""What a call takes of its limits, and what they say to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from quintet_gateway.admission.budget import Budget, State


@dataclass(frozen=True, slots=True)
class Window:
    """A token bucket: `limit` units at once, and as many again in every `seconds`.

    `key` tells it apart from all others; `name` is told to callers.
    """

    key: str
    name: str
    limit: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Places:
    """At most `limit` streams at once."""

    key: str
    name: str
    limit: int


@dataclass(frozen=True, slots=True)
class Demand:
    """`cost` units of each window, one of each of the `places`, and `amount` nano-units of
    each of the `budgets`, under the name `holder`: all of it or nothing.

    A cost above a window's limit takes the whole of it. An amount is reserved, for
    `lease_seconds` at most. `force`: it has been spent, so it is taken whatever is left, in
    place of the amount that the holder had `reserved`; a negative cost is given back.
    """

    windows: tuple[Window, ...]
    cost: int = 1
    places: tuple[Places, ...] = ()
    holder: str = ""
    force: bool = False
    budgets: tuple[Budget, ...] = ()
    amount: int = 0
    reserved: int = 0
    lease_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the limits say.

    `limit` is the one that refuses and otherwise the one of which the least is left, by
    its share; None where there is none. `remaining` units are left of it, and all of
    them in `reset_seconds`. `wait_seconds` is when to try again what was refused. `states`
    are those of the budgets; None where they are not known.
    """

    admitted: bool
    limit: Window | Places | Budget | None = None
    remaining: int = 0
    reset_seconds: float = 0.0
    wait_seconds: float = 0.0
    shared: bool = field(default=True, compare=False)
    """Whether all replicas were asked, and not this one's share alone."""
    counted: bool = field(default=True, compare=False)
    """Whether anything was taken anywhere."""
    states: tuple[State, ...] | None = field(default=(), compare=False)


HELD_WAIT_SECONDS = 1.0
"""When to try again what only the reservations of calls under way leave no room for."""


def over_budget(budget: Budget, state: State, amount: int) -> Verdict:
    """Return the refusal of an amount by a budget."""
    is_held = state.spent + amount <= budget.limit
    return Verdict(
        admitted=False,
        limit=budget,
        remaining=max(0, budget.limit - state.spent - state.held),
        wait_seconds=HELD_WAIT_SECONDS if is_held else budget.ends_in,
        states=(state,),
    )


STREAM_WAIT_SECONDS = 1.0
"""When to try again where all places are taken: nobody knows when a stream ends."""
