"""What takes long to make and may never be needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from quintet_servicekit.executor import BoundedExecutor
from quintet_servicekit.loading import Loading

T = TypeVar("T")


class Lazy(Generic[T]):
    """Makes a value once, on an executor of one thread, when it is first asked for.

    `loading` holds the attempts apart when making it raises.
    """

    def __init__(self, executor: BoundedExecutor, make: Callable[[], T], loading: Loading) -> None:
        self._executor = executor
        self._make = make
        self._loading = loading
        self._value: T | None = None

    async def get(self) -> T:
        """Return the value. Raises `ServiceError` DEPENDENCY_UNAVAILABLE when making it raises,
        at once for a pause after that, and OVERLOADED when the queue is full."""
        if self._value is not None:
            return self._value
        self._loading.check()
        return await self._executor.run(self._made)

    def _made(self) -> T:
        # The one thread is lock enough: who comes second finds the value there, even
        # if the first has left meanwhile.
        if self._value is None:
            with self._loading.attempt():
                self._value = self._make()
        return self._value
