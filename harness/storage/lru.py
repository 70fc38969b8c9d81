"""A thread-safe LRU cache with a size limit."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """Drops the least recently used values when the sum of sizes exceeds `limit`. `size`: of a value, 1 by default."""

    def __init__(self, limit: float, size: Callable[[Value], float] = lambda value: 1) -> None:
        self.limit, self.size = limit, size
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()
        self._total = 0.0

    def get(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def keep(self, key: Key, value: Value) -> None:
        """Adds a value; an existing one stays, as equal keys have equal values."""
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._total += self.size(value)
            while self._total > self.limit:
                self._total -= self.size(self._values.popitem(last=False)[1])
