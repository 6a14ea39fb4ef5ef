"""What is remembered by name, for each tenant apart: no tenant's names lead to another's."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from quintet_servicekit.identity import current

V = TypeVar("V")


class TenantMap(Generic[V]):
    """Values by the names that the present tenant gives them; the least recently used of
    all tenants' go where there are more than `capacity`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[tuple[str, str], V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str) -> V | None:
        """Return the present tenant's value of that name."""
        place = (current().tenant, name)
        if place not in self._values:
            return None
        self._values.move_to_end(place)
        return self._values[place]

    def put(self, name: str, value: V) -> None:
        """Remember a value under that name, for the present tenant."""
        place = (current().tenant, name)
        self._values[place] = value
        self._values.move_to_end(place)
        if len(self._values) > self._capacity:
            self._values.popitem(last=False)

    def forget(self, name: str) -> None:
        """Drop what is remembered under that name for the present tenant."""
        self._values.pop((current().tenant, name), None)
