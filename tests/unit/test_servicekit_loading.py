"""How often what fails to load is tried."""

from __future__ import annotations

import asyncio

import pytest

from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.loading import Loading


class Model:
    """Fails to load while it `is_broken`; time stands still but for `now`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.is_broken = True
        self.attempts = 0
        self._loading = Loading("language model", "m", clock=lambda: self.now)

    def load(self) -> None:
        with self._loading.attempt():
            self.attempts += 1
            if self.is_broken:
                raise OSError("no such file")

    def failure(self) -> ServiceError:
        with pytest.raises(ServiceError) as caught:
            self.load()
        return caught.value


def test_a_failure_is_told_with_the_time_to_wait_and_without_its_cause() -> None:
    error = Model().failure()
    assert error.reason is Reason.DEPENDENCY_UNAVAILABLE
    assert error.metadata == {"dependency": "language model", "model": "m"}
    assert error.retry_after == 1.0
    assert "no such file" not in error.message
    assert isinstance(error.__cause__, OSError)


def test_within_the_pause_the_failure_is_told_and_nothing_is_tried() -> None:
    it = Model()
    it.failure()
    it.is_broken = False
    it.now += 0.75
    assert it.failure().retry_after == pytest.approx(0.25)
    assert it.attempts == 1
    it.now += 0.25
    it.load()
    assert it.attempts == 2


def test_the_pause_doubles_up_to_a_minute_and_is_short_again_after_a_success() -> None:
    it = Model()
    pauses = []
    for _ in range(9):
        pauses.append(it.failure().retry_after or 0.0)
        it.now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    it.is_broken = False
    it.load()
    it.is_broken = True
    assert it.failure().retry_after == 1.0


def test_a_caller_who_leaves_is_no_failure_to_load() -> None:
    it = Loading("language model", "m")
    with pytest.raises(asyncio.CancelledError), it.attempt():
        raise asyncio.CancelledError
    it.check()
