"""A memory that forgets: by time, by number of entries and by weight, least recently used first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

Value = TypeVar("Value")


class _Entry(NamedTuple, Generic[Value]):
    value: Value
    until: float
    weight: int


class TtlCache(Generic[Value]):
    """Entries and their keys; `now` and `until` are seconds of one monotonic clock."""

    def __init__(self, *, max_entries: int, max_weight: int) -> None:
        self._entries: OrderedDict[Hashable, _Entry[Value]] = OrderedDict()
        self._max_entries, self._max_weight = max_entries, max_weight
        self._weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        """Whether it is kept, maybe past its end."""
        return key in self._entries

    def get(self, key: Hashable, now: float) -> Value | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: Hashable, value: Value, *, until: float, weight: int = 1) -> None:
        self.drop(key)
        self._entries[key] = _Entry(value, until, weight)
        self._weight += weight
        while len(self._entries) > self._max_entries or self._weight > self._max_weight:
            self._weight -= self._entries.popitem(last=False)[1].weight

    def drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._weight -= entry.weight

    def sweep(self, now: float) -> None:
        """Forget every entry whose time is over."""
        for key in [key for key, entry in self._entries.items() if entry.until <= now]:
            self.drop(key)

    def drop_where(self, condition: Callable[[Value], bool]) -> int:
        """Forget every entry whose value meets the condition; how many."""
        keys = [key for key, entry in self._entries.items() if condition(entry.value)]
        for key in keys:
            self.drop(key)
        return len(keys)
