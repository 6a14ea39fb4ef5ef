"""A breaker's admission, its classification of outcomes, and what it tells of itself."""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Callable
from random import Random

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY
from structlog.testing import CapturingLogger

from quintet_servicekit import telemetry
from quintet_servicekit.breaker import Breaker, Guard, Snapshot, State
from quintet_servicekit.breaker_policy import BreakerSettings, Outcome
from quintet_servicekit.errors import DEFAULT_RETRY_AFTER, Reason, ServiceError

DOWN = ServiceError(Reason.DEPENDENCY_UNAVAILABLE, "away")
LATE = ServiceError(Reason.DEADLINE_EXCEEDED, "late")


class Clock:
    """A clock that stands still but for `advance`; read many seconds after a start,
    as the system's is."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Callable[[], float], name: str = "dependency", **changed: object) -> Breaker:
    """Return a breaker that opens at the second failure in a row, for one second."""
    values = {"consecutive_failures": 2, "open_seconds": 1, "max_open_seconds": 8, **changed}
    return Breaker(name, BreakerSettings.model_validate(values), clock=clock, uniform=lambda: 1.0)


def state_of(breaker: Breaker) -> State:
    """Return its state; of the property itself mypy thinks that it stays what it was."""
    return breaker.state


def call(breaker: Breaker, error: BaseException | None = None, **guard: float) -> None:
    """Make a call that ends with `error`, which it must raise unchanged."""
    try:
        with breaker.guard(**guard):
            if error is not None:
                raise error
    except BaseException as raised:
        if raised is not error:
            raise


def open_it(breaker: Breaker) -> None:
    call(breaker, DOWN)
    call(breaker, DOWN)
    assert state_of(breaker) is State.OPEN


def half_open_it(breaker: Breaker, clock: Clock) -> None:
    """Leave it in half-open with no trial under way."""
    open_it(breaker)
    clock.advance(1)
    call(breaker, asyncio.CancelledError())
    assert state_of(breaker) is State.HALF_OPEN


def is_rejected(breaker: Breaker) -> bool:
    try:
        with breaker.guard():
            return False
    except ServiceError as error:
        assert error.reason is Reason.CIRCUIT_OPEN
        return True


# Opening


def test_failures_in_a_row_open_it_and_the_call_that_does_raises_its_own_error(
    clock: Clock,
) -> None:
    breaker = make(clock)
    call(breaker, DOWN)
    assert state_of(breaker) is State.CLOSED
    with pytest.raises(ServiceError) as caught, breaker.guard():
        raise DOWN
    assert caught.value is DOWN
    assert state_of(breaker) is State.OPEN


def test_a_success_between_failures_ends_their_row(clock: Clock) -> None:
    breaker = make(clock)
    for error in (DOWN, None) * 5:
        call(breaker, error)
    assert state_of(breaker) is State.CLOSED


def expire_at_once(breaker: Breaker, clock: Clock, calls: int) -> None:
    """Let calls expire that are under way at once, a hundredth of a second apart."""
    guards = [breaker.guard().__enter__() for _ in range(calls)]
    error = TimeoutError()
    for guard in guards:
        clock.advance(0.01)
        guard.__exit__(TimeoutError, error, None)


def test_calls_that_expire_at_once_are_one_failure_in_the_row(clock: Clock) -> None:
    breaker = make(clock, burst_seconds=0.1)
    expire_at_once(breaker, clock, 5)
    assert state_of(breaker) is State.CLOSED
    expire_at_once(breaker, clock, 5)
    assert state_of(breaker) is State.OPEN
    assert breaker.snapshot().cause == "2 failures in a row"


def test_calls_at_once_that_expire_one_after_the_other_each_count(clock: Clock) -> None:
    breaker = make(clock, burst_seconds=0.005)
    expire_at_once(breaker, clock, 2)
    assert state_of(breaker) is State.OPEN


def test_calls_that_expire_one_after_the_other_each_count(clock: Clock) -> None:
    breaker = make(clock, burst_seconds=0.1)
    for _ in range(2):
        call(breaker, TimeoutError())
        clock.advance(0.01)
    assert state_of(breaker) is State.OPEN


def test_an_expired_call_and_another_failure_are_two(clock: Clock) -> None:
    breaker = make(clock, burst_seconds=0.1)
    call(breaker, TimeoutError())
    call(breaker, DOWN)
    assert state_of(breaker) is State.OPEN


def test_calls_that_expire_at_once_all_count_in_the_rate(clock: Clock) -> None:
    breaker = make(clock, burst_seconds=0.1, min_calls=10, failure_rate=0.5)
    expire_at_once(breaker, clock, 10)
    assert breaker.snapshot().cause == "10 of 10 calls failed"


def test_a_rate_of_failures_opens_it_though_none_follow_each_other(clock: Clock) -> None:
    breaker = make(clock, min_calls=10, failure_rate=0.5)
    for error in (DOWN, None) * 4:
        call(breaker, error)
    call(breaker)
    assert state_of(breaker) is State.CLOSED
    call(breaker, DOWN)
    assert state_of(breaker) is State.OPEN
    assert breaker.snapshot().cause == "5 of 10 calls failed"


def test_calls_older_than_the_window_count_in_no_rate(clock: Clock) -> None:
    breaker = make(clock, min_calls=10, failure_rate=0.5, window_seconds=10)
    for error in (DOWN, None) * 4:
        call(breaker, error)
    assert breaker.snapshot().calls == 8
    clock.advance(11)
    for error in (DOWN, None) * 4:
        call(breaker, error)
    assert state_of(breaker) is State.CLOSED
    assert breaker.snapshot().calls == 8
    assert breaker.snapshot().failure_rate == 0.5


def test_slow_calls_open_it_though_they_succeed(clock: Clock) -> None:
    breaker = make(clock, min_calls=5, slow_seconds=1, slow_rate=0.8)
    for seconds in (0.1, 1, 1, 1, 1):
        assert state_of(breaker) is State.CLOSED
        with breaker.guard():
            clock.advance(seconds)
    assert state_of(breaker) is State.OPEN
    assert breaker.snapshot().cause == "4 of 5 calls were slow"


def test_a_long_stream_is_not_slow_when_its_first_message_came_soon(clock: Clock) -> None:
    breaker = make(clock, min_calls=1, slow_seconds=1, slow_rate=0.5)
    with breaker.guard() as guard:
        clock.advance(0.5)
        guard.first_message()
        clock.advance(60)
        guard.first_message()
    assert state_of(breaker) is State.CLOSED
    with breaker.guard() as guard:
        clock.advance(1)
        guard.first_message()
    assert state_of(breaker) is State.OPEN


# Which outcomes count


@pytest.mark.parametrize("reason", list(Reason))
def test_only_errors_that_blame_the_dependency_count(clock: Clock, reason: Reason) -> None:
    breaker = make(clock, consecutive_failures=1)
    call(breaker, ServiceError(reason, "m"))
    assert (state_of(breaker) is State.OPEN) == (
        reason
        in {
            Reason.DEPENDENCY_UNAVAILABLE,
            Reason.NOT_READY,
            Reason.DEADLINE_EXCEEDED,
            Reason.OVERLOADED,
            Reason.INTERNAL,
        }
    )


@pytest.mark.parametrize(
    ("code", "counts"),
    [
        (grpc.StatusCode.UNAVAILABLE, True),
        (grpc.StatusCode.UNKNOWN, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True),
        (grpc.StatusCode.NOT_FOUND, False),
        (grpc.StatusCode.CANCELLED, False),
    ],
)
def test_errors_of_grpc_count_by_their_code(
    clock: Clock, code: grpc.StatusCode, counts: bool
) -> None:
    breaker = make(clock, consecutive_failures=1)
    call(breaker, grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), None, None))
    assert (state_of(breaker) is State.OPEN) == counts


def test_an_error_that_is_the_callers_own_ends_a_row_of_failures(clock: Clock) -> None:
    breaker = make(clock)
    for error in (DOWN, ServiceError(Reason.COLLECTION_NOT_FOUND, "m")) * 5:
        call(breaker, error)
    assert state_of(breaker) is State.CLOSED


def test_a_drivers_own_exception_counts_as_failure(clock: Clock) -> None:
    breaker = make(clock, consecutive_failures=1)
    call(breaker, ConnectionResetError())
    assert state_of(breaker) is State.OPEN


def test_a_deadline_too_short_to_be_fair_counts_as_nothing(clock: Clock) -> None:
    breaker = make(clock, fair_timeout_seconds=0.1)
    for error in (LATE, TimeoutError()) * 5:
        call(breaker, error, timeout=0.09)
    assert state_of(breaker) is State.CLOSED
    assert breaker.snapshot().calls == 0
    call(breaker, DOWN)
    call(breaker, LATE, timeout=0.09)
    call(breaker, LATE, timeout=0.1)
    assert state_of(breaker) is State.OPEN


def test_overload_counts_only_where_the_settings_say_so(clock: Clock) -> None:
    breaker = make(clock, consecutive_failures=1, overload_is_failure=False)
    call(breaker, ServiceError(Reason.OVERLOADED, "m"))
    assert state_of(breaker) is State.CLOSED


def test_another_breakers_rejection_further_down_counts_as_nothing(clock: Clock) -> None:
    inner, outer = make(clock), make(clock)
    open_it(inner)
    call(outer, DOWN)
    for _ in range(10):
        with pytest.raises(ServiceError), outer.guard():
            call(inner)
    assert state_of(outer) is State.CLOSED
    call(outer, DOWN)
    assert state_of(outer) is State.OPEN


async def test_a_cancelled_call_counts_as_nothing(clock: Clock) -> None:
    breaker = make(clock)

    async def wait() -> None:
        with breaker.guard():
            await asyncio.Event().wait()

    for _ in range(10):
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert state_of(breaker) is State.CLOSED
    assert breaker.snapshot().calls == 0


def test_callers_who_give_up_on_a_hanging_dependency_show_that_it_is_slow(clock: Clock) -> None:
    breaker = make(clock, min_calls=3, slow_seconds=1, slow_rate=1)
    for _ in range(3):
        with pytest.raises(asyncio.CancelledError), breaker.guard():
            clock.advance(1)
            raise asyncio.CancelledError
    assert state_of(breaker) is State.OPEN


def test_callers_who_give_up_end_no_row_of_failures(clock: Clock) -> None:
    breaker = make(clock, slow_seconds=1)
    call(breaker, DOWN)
    with pytest.raises(asyncio.CancelledError), breaker.guard():
        clock.advance(1)
        raise asyncio.CancelledError
    call(breaker, DOWN)
    assert state_of(breaker) is State.OPEN


async def test_a_timeout_inside_the_guard_counts(clock: Clock) -> None:
    breaker = make(clock, consecutive_failures=1)
    with pytest.raises(TimeoutError), breaker.guard(timeout=5):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    assert state_of(breaker) is State.OPEN


def test_a_classification_of_ones_own_decides(clock: Clock) -> None:
    def only_os_errors(error: Exception) -> Outcome:
        return Outcome.FAILED if isinstance(error, OSError) else Outcome.ANSWERED

    breaker = Breaker(
        "d", BreakerSettings(consecutive_failures=1), classify=only_os_errors, clock=clock
    )
    call(breaker, LookupError())
    assert state_of(breaker) is State.CLOSED
    call(breaker, OSError())
    assert state_of(breaker) is State.OPEN


def test_a_classification_that_raises_keeps_no_trial(clock: Clock) -> None:
    def raising(error: Exception) -> Outcome:
        raise RuntimeError

    breaker = Breaker("d", BreakerSettings(), classify=raising, clock=clock)
    breaker.trip(1, "a test")
    clock.advance(1)
    with pytest.raises(RuntimeError), breaker.guard():
        raise DOWN
    assert not is_rejected(breaker)
    assert state_of(breaker) is State.CLOSED


# Open


def test_an_open_breaker_rejects_with_the_time_to_wait_and_the_dependencys_name(
    clock: Clock,
) -> None:
    breaker = make(clock, "postgres", open_seconds=4)
    open_it(breaker)
    clock.advance(1.5)
    with pytest.raises(ServiceError) as caught, breaker.guard():
        raise AssertionError("the call was made")
    assert caught.value.reason is Reason.CIRCUIT_OPEN
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert caught.value.retry_after == pytest.approx(2.5)
    assert caught.value.metadata == {"dependency": "postgres"}
    assert breaker.snapshot().rejections == 1


def test_each_failed_trial_doubles_the_stay_up_to_its_bound(clock: Clock) -> None:
    breaker = make(clock, open_seconds=1, max_open_seconds=5)
    open_it(breaker)
    for stay in (1, 2, 4, 5, 5):
        assert breaker.snapshot().retry_after == pytest.approx(stay)
        clock.advance(stay - 0.01)
        assert is_rejected(breaker)
        clock.advance(0.02)
        call(breaker, DOWN)
        assert state_of(breaker) is State.OPEN
    clock.advance(5.01)
    call(breaker)
    open_it(breaker)
    assert breaker.snapshot().retry_after == pytest.approx(1)


@pytest.mark.parametrize(("drawn", "stay"), [(0.0, 2.0), (0.5, 3.0), (1.0, 4.0)])
def test_a_stay_is_between_half_and_the_whole_of_its_longest(
    clock: Clock, drawn: float, stay: float
) -> None:
    longest = BreakerSettings(consecutive_failures=2, open_seconds=4, max_open_seconds=4)
    breaker = Breaker("d", longest, clock=clock, uniform=lambda: drawn)
    open_it(breaker)
    assert breaker.snapshot().retry_after == pytest.approx(stay)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Adak", "UTC"])
def test_the_time_to_wait_is_the_same_in_every_time_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        breaker = make(time.monotonic, open_seconds=30, max_open_seconds=30)
        open_it(breaker)
        assert 29 < breaker.snapshot().retry_after <= 30
        assert is_rejected(breaker)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_rejection_takes_less_than_a_tenth_of_a_millisecond() -> None:
    breaker = make(time.monotonic, open_seconds=60, max_open_seconds=60)
    open_it(breaker)
    seconds = []
    for _ in range(500):
        began = time.perf_counter()
        assert is_rejected(breaker)
        seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 1e-4


# Half-open


async def test_of_fifty_calls_at_once_in_half_open_one_runs(clock: Clock) -> None:
    breaker = make(clock)
    open_it(breaker)
    clock.advance(1)
    ran, answer = 0, asyncio.Event()

    async def ask() -> None:
        nonlocal ran
        with breaker.guard():
            ran += 1
            await answer.wait()

    tasks = [asyncio.create_task(ask()) for _ in range(50)]
    await asyncio.sleep(0)
    assert state_of(breaker) is State.HALF_OPEN
    answer.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert ran == 1
    rejected = [r for r in results if isinstance(r, ServiceError)]
    assert [r.reason for r in rejected] == [Reason.CIRCUIT_OPEN] * 49
    assert {r.retry_after for r in rejected} == {DEFAULT_RETRY_AFTER}
    assert state_of(breaker) is State.CLOSED


def test_a_late_success_of_a_call_from_before_does_not_close_it(clock: Clock) -> None:
    breaker = make(clock)
    with breaker.guard():
        open_it(breaker)
    assert state_of(breaker) is State.OPEN
    half_open = make(clock)
    with half_open.guard():
        half_open_it(half_open, clock)
    assert state_of(half_open) is State.HALF_OPEN


def test_a_late_failure_of_a_call_from_before_does_not_open_it_again(clock: Clock) -> None:
    breaker = make(clock, consecutive_failures=1)
    with pytest.raises(ServiceError), breaker.guard():
        call(breaker, DOWN)
        clock.advance(1)
        call(breaker)
        assert state_of(breaker) is State.CLOSED
        raise DOWN
    assert state_of(breaker) is State.CLOSED
    assert breaker.snapshot().calls == 0


def test_a_straggler_does_not_free_the_token_of_the_trial(clock: Clock) -> None:
    breaker = make(clock)
    with breaker.guard() as straggler:
        open_it(breaker)
        clock.advance(1)
        trial = breaker.guard()
        trial.__enter__()
        assert trial is not straggler
    assert is_rejected(breaker)
    trial.__exit__(None, None, None)
    assert state_of(breaker) is State.CLOSED


async def test_a_cancelled_trial_leaves_half_open_to_the_next_call(clock: Clock) -> None:
    breaker = make(clock)
    open_it(breaker)
    clock.advance(1)

    async def wait() -> None:
        with breaker.guard():
            await asyncio.Event().wait()

    trial = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert is_rejected(breaker)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert state_of(breaker) is State.HALF_OPEN
    call(breaker)
    assert state_of(breaker) is State.CLOSED


def test_a_trial_that_fails_opens_it_again(clock: Clock) -> None:
    breaker = make(clock)
    half_open_it(breaker, clock)
    call(breaker, DOWN)
    assert state_of(breaker) is State.OPEN
    assert breaker.snapshot().cause == "the trial failed"


def test_a_trial_that_is_answered_late_opens_it_again(clock: Clock) -> None:
    breaker = make(clock, slow_seconds=1)
    half_open_it(breaker, clock)
    with breaker.guard():
        clock.advance(1)
    assert state_of(breaker) is State.OPEN
    assert breaker.snapshot().cause == "the trial was slow"


def test_a_trial_that_its_caller_gave_up_as_slow_opens_it_again(clock: Clock) -> None:
    breaker = make(clock, slow_seconds=1)
    half_open_it(breaker, clock)
    with pytest.raises(asyncio.CancelledError), breaker.guard():
        clock.advance(1)
        raise asyncio.CancelledError
    assert state_of(breaker) is State.OPEN


async def test_a_stream_holds_the_trial_until_its_end(clock: Clock) -> None:
    breaker = make(clock)
    open_it(breaker)
    clock.advance(1)

    async def messages() -> AsyncGenerator[int]:
        with breaker.guard() as guard:
            for i in range(3):
                guard.first_message()
                yield i

    async for _ in messages():
        assert state_of(breaker) is State.HALF_OPEN
        assert is_rejected(breaker)
    assert state_of(breaker) is State.CLOSED


async def test_a_stream_that_its_reader_closes_frees_the_trial(clock: Clock) -> None:
    breaker = make(clock)
    open_it(breaker)
    clock.advance(1)

    async def messages() -> AsyncGenerator[int]:
        with breaker.guard():
            yield 0
            raise AssertionError("read on")

    stream = messages()
    assert await anext(stream) == 0
    await stream.aclose()
    assert state_of(breaker) is State.HALF_OPEN
    assert not is_rejected(breaker)


def test_a_trial_that_does_not_end_keeps_the_next_one_out_for_a_while_only(clock: Clock) -> None:
    breaker = make(clock, trial_seconds=2)
    half_open_it(breaker, clock)
    with breaker.guard():
        clock.advance(1.9)
        assert is_rejected(breaker)
        clock.advance(0.1)
        call(breaker)
        assert state_of(breaker) is State.CLOSED
        call(breaker, DOWN)
    # The old trial's own success came from half-open: it ends no row of failures.
    call(breaker, DOWN)
    assert state_of(breaker) is State.OPEN


ENDINGS = [None, DOWN, LATE, asyncio.CancelledError(), ServiceError(Reason.CONFLICT, "m")]
STEPS = st.one_of(
    st.tuples(st.just("begin"), st.just(0)),
    st.tuples(st.just("end"), st.integers(0, 1000)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.5, 1.0, 3.0])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=60), st.randoms(use_true_random=False))
def test_no_order_of_events_admits_two_trials_or_wedges_it(
    steps: list[tuple[str, float]], random: Random
) -> None:
    clock = Clock()
    breaker = make(clock, min_calls=5, slow_seconds=2, trial_seconds=3)
    under_way: list[Guard] = []
    trials: dict[Guard, tuple[float, float]] = {}  # when each began, and its state did
    for step, value in steps:
        before = breaker.snapshot()
        if step == "wait":
            clock.advance(value)
        elif step == "begin":
            guard = breaker.guard(timeout=1)
            try:
                guard.__enter__()
            except ServiceError:
                assert before.state is not State.CLOSED
                continue
            assert before.retry_after == 0
            under_way.append(guard)
            if state_of(breaker) is State.HALF_OPEN:
                since = clock.now - breaker.snapshot().seconds_in_state
                for other, (began, period) in trials.items():
                    kept_out = period == since and clock.now - began < 3
                    assert not (kept_out and other in under_way)
                trials[guard] = (clock.now, since)
        elif under_way:
            guard = under_way.pop(int(value) % len(under_way))
            guard.__exit__(None, random.choice(ENDINGS), None)
    clock.advance(10)  # longer than any stay and any trial
    call(breaker)
    assert breaker.state is State.CLOSED


# Those who share the state


def test_whoever_shares_the_state_decides_who_tries(clock: Clock) -> None:
    lease = False
    breaker = Breaker("d", BreakerSettings(), may_try=lambda: lease, clock=clock)
    breaker.trip(1, "another replica opened")
    clock.advance(10)
    assert is_rejected(breaker)
    assert state_of(breaker) is State.OPEN
    breaker.trip(3, "another replica's trial failed")
    breaker.trip(1, "an older message")
    assert breaker.snapshot().retry_after == 3
    breaker.reset("another replica's trial was answered")
    assert not is_rejected(breaker)
    breaker.trip(1, "another replica opened")
    clock.advance(1)
    lease = True
    call(breaker)
    assert state_of(breaker) is State.CLOSED


def test_a_subscriber_is_told_the_new_state_and_may_raise(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(telemetry, "logger", lambda: log)
    told: list[Snapshot] = []

    def raising(snapshot: Snapshot) -> None:
        raise RuntimeError

    breaker = make(clock)
    breaker.subscribe(raising)
    breaker.subscribe(told.append)
    open_it(breaker)
    clock.advance(1)
    call(breaker)
    assert state_of(breaker) is State.CLOSED
    assert [snapshot.state for snapshot in told] == [State.OPEN, State.HALF_OPEN, State.CLOSED]
    assert [c.method_name for c in log.calls].count("exception") == 3


# A probe instead of callers' trials


async def test_a_watched_breaker_closes_by_its_probe_and_tries_no_call(clock: Clock) -> None:
    breaker = make(clock)
    closed, probes, back = asyncio.Event(), 0, False

    async def probe() -> None:
        nonlocal probes, back
        probes += 1
        assert is_rejected(breaker)
        if not back:
            back = probes == 3
            raise ConnectionError

    def note(snapshot: Snapshot) -> None:
        if snapshot.state is State.CLOSED:
            closed.set()

    breaker.subscribe(note)
    async with breaker.watch(probe, interval=0.01):
        await asyncio.sleep(0)
        assert probes == 0
        open_it(breaker)
        clock.advance(100)
        assert is_rejected(breaker)
        await asyncio.wait_for(closed.wait(), 5)
    assert probes == 4
    assert state_of(breaker) is State.CLOSED


async def test_a_probe_that_hangs_is_given_up_and_sent_again(clock: Clock) -> None:
    breaker = make(clock)
    closed, probes = asyncio.Event(), 0

    async def probe() -> None:
        nonlocal probes
        probes += 1
        if probes == 1:
            await asyncio.Event().wait()

    breaker.subscribe(lambda snapshot: closed.set() if snapshot.state is State.CLOSED else None)
    async with breaker.watch(probe, interval=0.01):
        open_it(breaker)
        await asyncio.wait_for(closed.wait(), 5)
    assert probes == 2


async def test_a_probe_from_before_the_breaker_opened_anew_does_not_close_it() -> None:
    breaker = Breaker("d", BreakerSettings())
    states: list[State] = []
    done = asyncio.Event()

    async def probe() -> None:
        if not states:
            breaker.reset("another replica's trial was answered")
            breaker.trip(60, "another replica opened")
        states.append(breaker.state)
        if len(states) == 2:
            done.set()
            raise ConnectionError

    async with breaker.watch(probe, interval=0.001):
        breaker.trip(60, "a test")
        await asyncio.wait_for(done.wait(), 5)
    assert states == [State.OPEN] * 2
    assert state_of(breaker) is State.OPEN


async def test_only_who_may_try_sends_probes() -> None:
    asked = asyncio.Event()

    def may_try() -> bool:
        asked.set()
        return False

    async def probe() -> None:
        raise AssertionError("it was sent")

    breaker = Breaker("d", BreakerSettings(), may_try=may_try)
    async with breaker.watch(probe, interval=0.001):
        breaker.trip(0, "a test")
        await asyncio.wait_for(asked.wait(), 5)
    assert state_of(breaker) is State.OPEN


async def test_callers_try_again_when_the_watcher_has_ended(clock: Clock) -> None:
    breaker = make(clock)
    ended = asyncio.Event()

    async def probe() -> None:
        ended.set()
        raise asyncio.CancelledError  # as a driver may, whose own task is cancelled

    async with breaker.watch(probe, interval=0.001):
        open_it(breaker)
        clock.advance(100)
        await asyncio.wait_for(ended.wait(), 5)
        await asyncio.sleep(0)
        call(breaker)
        assert state_of(breaker) is State.CLOSED


# What it tells


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"quintet_breaker_{name}", labels)


def test_metrics_show_state_transitions_and_rejections(clock: Clock) -> None:
    breaker = make(clock, "told")
    assert metric("state", breaker="told", state="closed") == 1
    assert metric("state", breaker="told", state="open") == 0
    assert metric("transitions_total", breaker="told", state="open") == 0
    open_it(breaker)
    assert metric("state", breaker="told", state="closed") == 0
    assert metric("state", breaker="told", state="open") == 1
    assert metric("transitions_total", breaker="told", state="open") == 1
    assert is_rejected(breaker)
    assert metric("rejections_total", breaker="told") == 1
    clock.advance(1)
    call(breaker, asyncio.CancelledError())
    assert metric("state", breaker="told", state="half_open") == 1


def test_spans_of_callers_show_transitions_and_rejections(clock: Clock) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    breaker = make(clock, "told")
    with provider.get_tracer("test").start_as_current_span("call"):
        open_it(breaker)
        assert is_rejected(breaker)
    (span,) = spans.get_finished_spans()
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        (
            "quintet.breaker.transition",
            {
                "quintet.breaker.name": "told",
                "quintet.breaker.state": "open",
                "quintet.breaker.cause": "2 failures in a row",
            },
        ),
        (
            "quintet.breaker.rejected",
            {"quintet.breaker.name": "told", "quintet.breaker.state": "open"},
        ),
    ]


def test_a_transition_is_one_line_of_the_log(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(telemetry, "logger", lambda: log)
    breaker = make(clock, "told")
    open_it(breaker)
    assert is_rejected(breaker)
    clock.advance(1)
    call(breaker)
    assert [(c.method_name, c.kwargs["before"], c.kwargs["state"]) for c in log.calls] == [
        ("warning", "closed", "open"),
        ("info", "open", "half_open"),
        ("info", "half_open", "closed"),
    ]
    assert log.calls[0].kwargs["cause"] == "2 failures in a row"


def test_a_log_that_cannot_be_written_does_not_keep_it_from_opening(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(CapturingLogger):
        def __getattr__(self, name: str) -> Callable[..., None]:
            raise BrokenPipeError

    monkeypatch.setattr(telemetry, "logger", Closed)
    open_it(make(clock))


def test_a_snapshot_shows_the_window_and_the_time_in_the_state(clock: Clock) -> None:
    breaker = make(clock, "told", slow_seconds=1)
    clock.advance(3)
    call(breaker, DOWN)
    with breaker.guard():
        clock.advance(1)
    snapshot = breaker.snapshot()
    assert (snapshot.name, snapshot.state, snapshot.cause) == ("told", State.CLOSED, "started")
    assert snapshot.seconds_in_state == 4
    assert snapshot.retry_after == 0
    assert (snapshot.calls, snapshot.failure_rate, snapshot.slow_rate) == (2, 0.5, 0.5)


def test_a_bound_below_the_first_stay_is_refused() -> None:
    with pytest.raises(ValueError, match="max_open_seconds"):
        BreakerSettings(open_seconds=3, max_open_seconds=2)
