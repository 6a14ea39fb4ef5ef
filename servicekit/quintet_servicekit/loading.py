"""Loading what may fail to load: not again at each call, but after a growing pause.

For models, whose loading takes long and fails for as long as nobody mends their files or
frees memory. Each caller within the pause is told of the last failure at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from quintet_servicekit import telemetry
from quintet_servicekit.errors import Reason, ServiceError

FIRST_PAUSE = 1.0
"""Seconds until the second attempt: short, as the first may have failed by chance."""
LONGEST_PAUSE = 60.0
"""Seconds that the pause, doubling with each failure, ends at: soon enough for whoever has
mended it, and rare enough for what takes seconds of every core to try."""


class Loading:
    """The attempts to load one model, by which name errors tell of it, for instance as
    the `dependency` "language model".

    Safe across threads if attempts are made one at a time; `clock` is monotonic, in seconds.
    """

    def __init__(
        self, dependency: str, model: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._dependency = dependency
        self._model = model
        self._clock = clock
        self._pause = FIRST_PAUSE
        self._next = 0.0
        self._has_failed = False

    def check(self) -> None:
        """Raise `ServiceError` DEPENDENCY_UNAVAILABLE, with the time to wait, within the pause
        after a failure."""
        if self._has_failed and self._clock() < self._next:
            raise self._failure()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Load within the context. Raises as `check` does, before the load or when it raises
        an exception, which is logged. A cancellation counts as nothing."""
        self.check()
        try:
            yield
        except Exception as error:
            self._next = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._has_failed = True
            failure = self._failure()
            telemetry.logger().error(
                "a model cannot be loaded",
                dependency=self._dependency,
                model=self._model,
                again_after_seconds=failure.retry_after,
                exc_info=error,
            )
            raise failure from error
        self._pause = FIRST_PAUSE
        self._has_failed = False

    def _failure(self) -> ServiceError:
        return ServiceError(
            Reason.DEPENDENCY_UNAVAILABLE,
            f"the {self._dependency} {self._model} cannot be loaded; the log says why",
            metadata={"dependency": self._dependency, "model": self._model},
            retry_after=max(0.0, self._next - self._clock()),
        )
