"""Circuit breakers: calls to a dependency that is down fail at once instead of waiting.

Whoever owns a driver or a channel holds one `Breaker` per dependency and makes each
call inside `with breaker.guard(timeout=…)`. State, transitions and the states'
names are aiobreaker's; admission, time and counting are ours, for the reasons in
docs/adr/0006-breakers-around-aiobreaker.md. A breaker belongs to one event loop: none of its
methods but `watch` has a point at which another task could run.
"""

from __future__ import annotations

import asyncio
import enum
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from aiobreaker import CircuitBreaker

from quintet_servicekit.breaker_policy import BreakerSettings, Outcome, outcome_of
from quintet_servicekit.breaker_telemetry import Announcer
from quintet_servicekit.breaker_window import Tally
from quintet_servicekit.errors import DEFAULT_RETRY_AFTER, Reason, ServiceError


class State(enum.StrEnum):
    """The three states of a breaker."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A breaker at one moment, for those who report on it.

    The counts and rates are those of the rolling window, which only calls in closed
    enter; rates are 0 to 1, and 0 where there was no call. Times are in seconds;
    `retry_after` is 0 where calls are admitted.
    """

    name: str
    state: State
    seconds_in_state: float
    cause: str
    retry_after: float
    rejections: int
    calls: int
    failure_rate: float
    slow_rate: float


class Trials(Protocol):
    """Decides for all replicas that share a breaker which of them tries the dependency. Both
    methods answer at once."""

    def begin(self, seconds: float) -> bool:
        """Return whether a trial, or a probe, may be sent now. It keeps out those of all
        replicas until `ended`, or for `seconds` if it hangs for longer."""
        ...

    def ended(self) -> None:
        """Note that the trial has ended, or decides nothing any more."""
        ...


class Guard:
    """One call, or one stream from its start to its end; see `Breaker.guard`."""

    __slots__ = ("_answered", "_began", "_breaker", "_generation", "_timeout")

    def __init__(self, breaker: Breaker, timeout: float | None) -> None:
        self._breaker = breaker
        self._timeout = timeout
        self._answered: float | None = None

    def __enter__(self) -> Guard:
        self._began, self._generation = self._breaker._admit(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._breaker._leave(self, error)

    def first_message(self) -> None:
        """Note that a stream's message has arrived: its wait ends with the first one,
        and later ones change nothing."""
        if self._answered is None:
            self._answered = self._breaker._clock()


class Breaker:
    """The breaker in front of the dependency `name` ("postgres", "embedder"), by which
    the process's metrics tell it from its others.

    `classify` says what an exception that a call raised means. `may_try` is asked
    before a trial or a probe is sent, and must answer at once. `clock` is monotonic, in
    seconds; `uniform` draws from 0 to 1.
    """

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        *,
        classify: Callable[[Exception], Outcome] = outcome_of,
        may_try: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._settings = settings
        self._classify = classify
        self._may_try = may_try
        self._trials: Trials | None = None
        self._clock = clock
        self._uniform = uniform
        self._announcer = Announcer(name)
        self._circuit = CircuitBreaker(name=name, listeners=[self._announcer])
        self._tally = Tally(settings)
        self._longest_stay = settings.open_seconds
        self._open_until = 0.0
        self._suspected_until = -math.inf
        self._generation = 0
        self._trial: Guard | None = None
        self._since = clock()
        self._cause = "started"
        self._rejections = 0
        self._not_closed = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """The state. An open breaker stays so until a call or a probe comes as its trial."""
        return State[self._circuit.current_state.name]

    def guard(self, *, timeout: float | None = None) -> Guard:
        """Return the context manager within which to make one call of the dependency.

        `timeout` is what the call itself was given, in seconds; it must end the call
        inside the guard, because a cancellation from outside counts as nothing. A
        stream is iterated to its end inside, and tells of its `first_message`. What
        the call raises is raised on unchanged.

        Entering raises `ServiceError` CIRCUIT_OPEN when the breaker is open, or
        half-open with its trial under way.
        """
        return Guard(self, timeout)

    def subscribe(self, told: Callable[[Snapshot], None]) -> None:
        """Have `told` called after each transition; what it raises is logged and dropped."""
        self._announcer.subscribers.append(lambda: told(self.snapshot()))

    def share_trials(self, trials: Trials) -> None:
        """Have `trials` asked too before a trial or a probe is sent. Who shares the state
        among replicas tells it by `suspect` and `reset`."""
        self._trials = trials

    def suspect(self, seconds: float) -> None:
        """Let the next call that ends within so long decide: a failure opens the breaker."""
        self._suspected_until = self._clock() + seconds

    def snapshot(self) -> Snapshot:
        """Return the breaker as it is now."""
        now = self._clock()
        counts = self._tally.counts(now)
        return Snapshot(
            name=self.name,
            state=self.state,
            seconds_in_state=now - self._since,
            cause=self._cause,
            retry_after=max(0.0, self._open_until - now) if self.state is State.OPEN else 0.0,
            rejections=self._rejections,
            calls=counts.calls,
            failure_rate=counts.failures / max(1, counts.calls),
            slow_rate=counts.slow / max(1, counts.calls),
        )

    def trip(self, seconds: float, cause: str) -> None:
        """Open the breaker, or keep it open, for at least `seconds` from now."""
        until = self._clock() + seconds
        self._open_until = max(self._open_until, until) if self.state is State.OPEN else until
        if self.state is not State.OPEN:
            self._move(State.OPEN, cause)

    def reset(self, cause: str) -> None:
        """Close the breaker, whatever calls under way will say."""
        if self.state is not State.CLOSED:
            self._tally.clear()
            self._longest_stay = self._settings.open_seconds
            self._move(State.CLOSED, cause)

    @asynccontextmanager
    async def watch(
        self, probe: Callable[[], Awaitable[None]], interval: float
    ) -> AsyncGenerator[None]:
        """Within the context, find the dependency's return by `probe` and by no caller's call.

        While the breaker is not closed, `probe` runs after each half to whole
        `interval` seconds and has `interval` to return; a return closes the
        breaker, an exception keeps it as it is.
        """
        self._watcher = asyncio.create_task(self._probe_while_open(probe, interval))
        try:
            yield
        finally:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    async def _probe_while_open(
        self, probe: Callable[[], Awaitable[None]], interval: float
    ) -> None:
        while await self._not_closed.wait():
            await asyncio.sleep(interval * (1 + self._uniform()) / 2)
            generation = self._generation
            if not self._may_begin(interval):
                continue
            try:
                answered = await _returns(probe, interval)
            finally:
                self._tell_ended()
            if answered and generation == self._generation:
                self.reset("a probe was answered")

    def _admit(self, guard: Guard) -> tuple[float, int]:
        now = self._clock()
        state = self.state
        if state is not State.CLOSED:
            self._admit_as_trial(guard, state, now)
        return now, self._generation

    def _admit_as_trial(self, guard: Guard, state: State, now: float) -> None:
        most = self._settings.trial_seconds
        longest = most if guard._timeout is None else min(guard._timeout, most)
        if state is State.OPEN:
            # A watcher that has ended finds nothing any more: then callers do again.
            watched = self._watcher is not None and not self._watcher.done()
            if watched or now < self._open_until or not self._may_begin(longest):
                raise self._rejection(state, self._open_until - now)
            self._move(State.HALF_OPEN, "a call tries the dependency")
        else:
            free = self._trial is None or now - self._trial._began >= most
            if not free or not self._may_begin(longest):
                raise self._rejection(state, 0)
        self._trial = guard

    def _may_begin(self, seconds: float) -> bool:
        return self._may_try() and (self._trials is None or self._trials.begin(seconds))

    def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial = None
            self._tell_ended()

    def _tell_ended(self) -> None:
        if self._trials is not None:
            self._trials.ended()

    def _rejection(self, state: State, wait: float) -> ServiceError:
        self._rejections += 1
        self._announcer.rejected(state)
        return ServiceError(
            Reason.CIRCUIT_OPEN,
            f"calls to {self.name} are suspended, because it failed or was slow just now",
            metadata={"dependency": self.name},
            retry_after=max(wait, DEFAULT_RETRY_AFTER),
        )

    def _leave(self, guard: Guard, error: BaseException | None) -> None:
        now = self._clock()
        try:
            outcome = self._outcome(guard, error)
        finally:
            if self._trial is guard:
                self._end_trial()
        # Whoever was admitted in an earlier state tells of a time that is over.
        if guard._generation == self._generation:
            self._record(guard, outcome, now)

    def _outcome(self, guard: Guard, error: BaseException | None) -> Outcome:
        if error is None:
            return Outcome.ANSWERED
        # Cancellation, a stream closed by its reader, the end of the process.
        if not isinstance(error, Exception):
            return Outcome.NEUTRAL
        return self._settings.judge(self._classify(error), guard._timeout)

    def _record(self, guard: Guard, outcome: Outcome, now: float) -> None:
        waited = (now if guard._answered is None else guard._answered) - guard._began
        # Also where the caller gave up: to have kept it waiting so long is the
        # dependency's own doing.
        slow = waited >= self._settings.slow_seconds
        if outcome is Outcome.NEUTRAL and not slow:
            return
        failed = outcome in (Outcome.FAILED, Outcome.TIMED_OUT)
        if self.state is State.HALF_OPEN:
            if failed:
                self._open("the trial failed", now)
            elif slow:
                self._open("the trial was slow", now)
            else:
                self.reset("the trial was answered")
            return
        cause = self._tally.add(guard._began, now, outcome, slow=slow)
        if failed and now < self._suspected_until:
            cause = cause or "it failed, as it did for another replica"
        self._suspected_until = -math.inf
        if cause is not None:
            self._open(cause, now)

    def _open(self, cause: str, now: float) -> None:
        self._open_until = now + self._longest_stay * (1 + self._uniform()) / 2
        self._longest_stay = min(2 * self._longest_stay, self._settings.max_open_seconds)
        self._move(State.OPEN, cause)

    def _move(self, state: State, cause: str) -> None:
        self._generation += 1
        self._end_trial()
        self._since = self._clock()
        self._cause = self._announcer.cause = cause
        if state is State.CLOSED:
            self._not_closed.clear()
            self._circuit.close()
        else:
            self._not_closed.set()
            self._circuit.open() if state is State.OPEN else self._circuit.half_open()
        self._announcer.tell_subscribers()


async def _returns(probe: Callable[[], Awaitable[None]], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await probe()
    except Exception:
        return False
    return True
